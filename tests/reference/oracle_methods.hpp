// What each method decides in a layer, in double: spec/methods.md 2 and 7 read aloud, with the clamps of section 3.
#pragma once

#include <functional>

#include "reference/oracle.hpp"

namespace fastkv::test {

/// One layer's attention as a method may ask for it.
struct LayerAttention {
  int layer = 0, n_layer = 0, heads = 0, heads_kv = 0;
  std::int64_t n = 0;         ///< rows that entered
  std::int64_t n_prompt = 0;  ///< L
  /// Softmax of row i's scaled q·k over the first `visible` keys.
  std::function<std::vector<double>(int head, std::int64_t i, std::int64_t visible)> weights;
  /// q·k of the last row with every key, unscaled.
  std::function<std::vector<double>(int head)> last_logits;
};

struct Decision {
  std::vector<std::vector<std::int32_t>> keep;    ///< [stored heads] rows for the cache
  std::optional<std::vector<std::int32_t>> next;  ///< rows that go on; absent: all
};

/// Heads whose cache rows are chosen apart: H or K.
int stored_heads(const MethodParams& method, const ModelConfig& config);

/// Also writes down the scores that decided: raw, pooled, grouped, propagation of `out`.
Decision decide(const MethodParams& method, const LayerAttention& layer, OracleLayer& out);

/// Query rows whose attention `raw` sums (coverage is a share of their mass).
std::int64_t scoring_rows(const MethodParams& method, std::int64_t n);

/// GemFilter (2.6): k, and v by which tokens are chosen in the filter layer.
std::int64_t filtered_tokens(const MethodParams& method, std::int64_t n_prompt);
std::vector<double> filter_scores(const LayerAttention& layer);

}  // namespace fastkv::test
