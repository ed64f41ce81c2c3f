// One decode step: all layers and the output head inside one parallel region.
#include <algorithm>

#include "backend/cpu/cpu_backend.hpp"
#include "core/arg_max.hpp"
#include "core/check.hpp"

namespace fastkv::cpu {
namespace {

/// Also the logits of `tokens` but those of `banned` (ascending).
void take(BestLogit& best, const float* logits, Range tokens, std::span<const std::int32_t> banned) {
  std::int64_t at = tokens.begin;
  const auto take_until = [&](std::int64_t end) {
    if (end > at) best.take({logits + (at - tokens.begin), std::size_t(end - at)}, std::int32_t(at));
  };
  for (const std::int32_t id : banned) {
    if (id < at || id >= tokens.end) continue;
    take_until(id);
    at = id + 1;
  }
  take_until(tokens.end);
}

}  // namespace

void CpuBackend::decode_step(std::span<const SequenceStep> sequences, const StepOutput& out, RunControl& control) {
  std::vector<StepRow> rows;
  std::vector<std::int32_t> positions, tokens;
  for (const SequenceStep& s : sequences) {
    check(s.layers.size() == std::size_t(config_.n_layer) && !s.tokens.empty(), ErrorCode::internal,
          "decode_step: ", s.layers.size(), " layers, ", s.tokens.size(), " tokens");
    for (std::size_t i = 0; i < s.tokens.size(); ++i) {
      rows.push_back({&s, std::int64_t(s.tokens.size() - 1 - i)});
      positions.push_back(std::int32_t(s.first_position + std::int64_t(i)));
      tokens.push_back(s.tokens[i]);
    }
    for (const auto& layer : s.layers) static_cast<CpuLayerCache&>(*layer).append(std::int64_t(s.tokens.size()));
  }
  const std::int64_t m = std::int64_t(rows.size());
  if (!narrow_ || narrow_->rows() != m)
    narrow_ = std::make_unique<NarrowLayer>(decode_arithmetic_, config_, *team_, *clocks_, LinearUse::decode, m);
  NarrowLayer& narrow = *narrow_;
  if (!attention_)
    attention_ = std::make_unique<DecodeAttention>(*arithmetic_.kernels, shape_, decode_arithmetic_.bf16_attention,
                                                   *team_, *clocks_);
  attention_->begin(std::move(rows), config_.n_layer);
  rope_table(positions, attention_->cos_sin().data());

  const std::size_t vocab = std::size_t(config_.n_vocab);
  float* logits = out.logits;                           // [m, V], unless the caller wants none
  if (logits && m != std::int64_t(sequences.size())) {  // some rows are before the last of their sequence
    logits_.resize(std::size_t(m) * vocab);
    logits = logits_.data();
  }
  for (std::int64_t i = 0; i < m; ++i)
    weights_.token_embd.read_row(tokens[std::size_t(i)], narrow.x() + i * config_.n_embd);
  std::vector<std::int64_t> last_rows;  // of each sequence
  for (std::int64_t last = -1; const SequenceStep& s : sequences)
    last_rows.push_back(last += std::int64_t(s.tokens.size()));
  std::vector<std::int32_t> banned(out.banned.begin(), out.banned.end());
  std::sort(banned.begin(), banned.end());
  std::vector<BestLogit> best(std::size_t(team_->size()) * sequences.size());  // of what each thread computes
  team_->run([&](int thread) {
    for (int layer = 0; layer < config_.n_layer; ++layer) {
      const LayerWeights& weights = weights_.layers[std::size_t(layer)];
      narrow.project(thread, weights, true);
      attention_->run(thread, layer, narrow);
      const bool last = layer + 1 == config_.n_layer;
      narrow.output_and_mlp(
          thread, weights,
          last ? narrow.head(weights_) : narrow.projections(weights_.layers[std::size_t(layer) + 1], true));
      if (thread == 0) control.poll();
    }
    // by each thread on the way: afterwards, from memory, 128,000 logits took two threads 0.1 ms
    const auto keep_best = [&](std::int64_t row, Range among, const float* found) {
      for (std::size_t s = 0; s < sequences.size(); ++s)
        if (last_rows[s] == row) take(best[std::size_t(thread) * sequences.size() + s], found, among, banned);
    };
    narrow.output_head(thread, weights_, logits, out.best ? NarrowLayer::HeadDone(keep_best) : nullptr);
  });
  control.throw_if_stopped();
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    if (logits != out.logits) std::copy_n(logits + std::size_t(last_rows[s]) * vocab, vocab, out.logits + s * vocab);
    if (!out.best) continue;
    BestLogit all;
    for (int thread = 0; thread < team_->size(); ++thread) all.take(best[std::size_t(thread) * sequences.size() + s]);
    all.check_valid();
    check(all.token >= 0, ErrorCode::internal, "expected a finite logit among ", vocab);
    out.best[s] = all.token;
  }
}

}  // namespace fastkv::cpu
