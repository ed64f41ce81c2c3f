// GemFilter's choice of tokens.
#include "prefill/methods/gemfilter.hpp"

#include <algorithm>

namespace fastkv {
namespace {

// Of the layers of the first pass, which keep nothing, only the last one lets rows go.
bool filters(const LayerPlan& plan) { return plan.kept == 0 && plan.tokens_out < plan.tokens_in; }

}  // namespace

std::vector<LayerPlan> GemFilter::filter_plan() const {
  const std::int64_t n = n_prompt_, k = std::max<std::int64_t>(budget(n), 1);
  if (k >= n) return {};  // the first pass would choose every token
  std::vector<LayerPlan> layers(std::size_t(params_.filter_layer) + 1, LayerPlan{n, n, 0, {}});
  layers.back().tokens_out = k;
  return layers;
}

// S4: the filter layer needs keys and the last row's query, nothing else
ScoreNeeds GemFilter::needs(int, const LayerPlan& plan) const {
  return filters(plan) ? ScoreNeeds{1, params_.shortcuts} : ScoreNeeds{};
}

LayerChoice GemFilter::select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                              RunControl& control) const {
  constexpr int kWidth = 5;  // fixed
  if (!filters(plan)) return keep_all(state.n, backend);
  // u[j] = Σ_h q_h·k_j, raw; v = its average pooling; J = the k largest
  const auto u = backend.reduce_heads(*backend.last_row_logits(layer, state, control), 1, GroupReduce::sum);
  const auto v = backend.pool(*u, Pooling::avg, {kWidth / 2, kWidth / 2});
  LayerChoice choice;
  choice.next = backend.top_k(*v, state.n, {plan.tokens_out}, 0, 0);
  return choice;
}

}  // namespace fastkv
