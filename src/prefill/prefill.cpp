// The loop over layers. What is kept and who goes on is the method's decision; how it is computed is the backend's.
#include "prefill/prefill.hpp"

#include <algorithm>
#include <numeric>

#include "core/check.hpp"
#include "prefill/methods/method.hpp"

namespace fastkv {
namespace {

// Original positions of the rows in one head of a selection.
std::vector<std::int32_t> positions_of(Backend& backend, const Selection& selection, int head,
                                       const std::vector<std::int32_t>& positions) {
  std::vector<std::int32_t> rows = backend.read(selection, head);
  for (std::int32_t& row : rows) row = positions[std::size_t(row)];
  return rows;
}

}  // namespace

Prefill prefill(Backend& backend, const ModelConfig& config, const RunPlan& plan, std::span<const std::int32_t> tokens,
                const PrefillOptions& options, const std::function<void(int layer)>& on_layer, RunControl& control) {
  const auto method = make_method(plan.method, config, plan.n_prompt);
  Prefill out;
  std::unique_ptr<Hidden> x;
  std::vector<std::int32_t> chosen;  // by a pass that filters
  backend.take_stage_times();        // the clock runs from here
  for (const auto* layers : {&plan.filter_layers, &plan.layers}) {
    if (layers->empty()) continue;
    const bool filtering = layers == &plan.filter_layers;
    const int last_layer = int(layers->size()) - 1;
    std::vector<std::int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    x = backend.embed(tokens, std::move(positions), control);
    out.end_times += backend.take_stage_times();

    for (int l = 0; l <= last_layer; ++l) {
      const LayerPlan& planned = (*layers)[std::size_t(l)];
      on_layer(l);
      check(x->n() == planned.tokens_in, ErrorCode::internal, "layer ", l, ": ", x->n(), " rows, planned ",
            planned.tokens_in);
      ScoreNeeds needs = method->needs(l, planned);
      needs.rows = std::max(needs.rows, options.score_rows);
      auto state = backend.begin_layer(l, *x, needs, control);
      if (options.score_rows > 0) {  // Σ_h S[h, j]
        const auto s = backend.column_scores(l, *state, {options.score_rows, options.score_rows}, control);
        const std::vector<float> sums = backend.read(*backend.reduce_heads(*s, 1, GroupReduce::sum));
        out.scores.insert(out.scores.end(), sums.begin(), sums.end());
      }
      LayerChoice choice = method->select(l, planned, *state, backend, control);

      if (filtering && l == last_layer) out.trace.selected = positions_of(backend, *choice.next, 0, x->positions());
      if (filtering && l == last_layer && plan.method.shortcuts) {  // S4
        out.layer_times.push_back(backend.take_stage_times());
        break;
      }
      if (!filtering) {
        LayerTrace trace{x->n(), {}, choice.coverage};
        const auto entered = options.record_kept ? x->positions() : std::vector<std::int32_t>();
        if (options.record_kept) {
          for (int h = 0; h < choice.keep->heads; ++h)
            trace.kept.push_back(positions_of(backend, *choice.keep, h, entered));
        }
        if (plan.method.method == MethodName::fastkv && choice.next) {
          out.trace.tsp_layer = l;
          if (options.record_kept) out.trace.tsp_kept = positions_of(backend, *choice.next, 0, entered);
        }
        out.trace.layers.push_back(std::move(trace));
        out.cache.layers.push_back(backend.store(*state, *choice.keep, options.format, control));
        // S2: after the last layer only the last row matters
        if (l == last_layer && plan.method.shortcuts && !options.all_logits)
          choice.next = backend.select_ends(x->n(), 0, 1, 1);
      }
      if (plan.method.shortcuts) {
        backend.finish_layer(l, *x, *state, choice.next.get(), control);  // S1, S5: only rows that go on
      } else {
        backend.finish_layer(l, *x, *state, nullptr, control);
        out.token_layers += state->n - (choice.next ? planned.tokens_out : state->n);
        if (choice.next) backend.gather(*x, *choice.next);
      }
      if (options.record_hidden && !filtering) {
        const std::vector<float> last = backend.read_last(*x);
        out.hidden.insert(out.hidden.end(), last.begin(), last.end());
      }
      out.token_layers += x->n();
      out.layer_times.push_back(backend.take_stage_times());
    }  // S13: the layer's K and V are freed here
    if (!filtering) break;
    for (std::int32_t position : out.trace.selected) chosen.push_back(tokens[std::size_t(position)]);
    tokens = chosen;  // from scratch, at positions 0 .. k − 1
  }

  const std::int64_t rows = options.all_logits ? x->n() : 1;  // S3
  out.logits.resize(std::size_t(rows) * std::size_t(config.n_vocab));
  backend.logits(*x, rows, out.logits.data(), control);
  out.end_times += backend.take_stage_times();
  out.cache.next_position = std::int64_t(tokens.size());
  return out;
}

}  // namespace fastkv
