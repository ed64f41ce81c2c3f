// One decode step: all layers and the output head inside one parallel region.
#include <algorithm>
#include <cmath>
#include <utility>

#include "backend/cpu/cpu_backend.hpp"
#include "core/arg_max.hpp"
#include "core/check.hpp"

namespace fastkv::cpu {
namespace {

/// Index of the largest of logits [vocab] but those of `banned`, which are −∞ meanwhile.
std::int32_t best_token(float* logits, std::size_t vocab, std::span<const std::int32_t> banned) {
  check_logits({logits, vocab});
  std::vector<float> kept;
  for (const std::int32_t id : banned) kept.push_back(std::exchange(logits[id], -INFINITY));
  const std::int32_t best = arg_max({logits, vocab});
  for (std::size_t i = banned.size(); i-- > 0;) logits[banned[i]] = kept[i];
  return best;
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
  if (!attention_) attention_ = std::make_unique<DecodeAttention>(*arithmetic_.kernels, shape_, *team_, *clocks_);
  attention_->begin(std::move(rows), config_.n_layer);
  rope_table(positions, attention_->cos_sin().data());

  const std::size_t vocab = std::size_t(config_.n_vocab);
  const bool every_row_counts = m == std::int64_t(sequences.size());  // none is before the last of its sequence
  float* logits = out.logits;                                         // [m, V]
  if (!every_row_counts || !logits) {
    logits_.resize(std::size_t(m) * vocab);
    logits = logits_.data();
  }
  for (std::int64_t i = 0; i < m; ++i)
    weights_.token_embd.read_row(tokens[std::size_t(i)], narrow.x() + i * config_.n_embd);
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
    narrow.output_head(thread, weights_, logits);
  });
  control.throw_if_stopped();
  std::int64_t last = -1;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    last += std::int64_t(sequences[s].tokens.size());
    float* row = logits + std::size_t(last) * vocab;
    if (out.logits && out.logits + s * vocab != row) std::copy_n(row, vocab, out.logits + s * vocab);
    if (out.best) out.best[s] = best_token(row, vocab, out.banned);
  }
}

}  // namespace fastkv::cpu
