// The layer-major prefill: all tokens pass layer l before any passes l + 1, so that only one layer's full K and V live.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "cache/kv_cache.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

struct Prefill {
  KvCache cache;
  std::vector<float> logits;            ///< [V] of the last token, or [n, V] of all
  std::vector<float> hidden;            ///< [N, D] last row after each layer, if asked for
  std::vector<float> scores;            ///< [N, n − score_rows] if asked for
  Trace trace;                          ///< kept sets only if asked for; coverage always
  std::int64_t token_layers = 0;        ///< Σ over layers of rows whose attention and MLP were computed
  std::vector<StageTimes> layer_times;  ///< [filter layers + N]
  StageTimes end_times;                 ///< embedding, output head
};

struct PrefillOptions {
  CacheFormat format;
  bool record_kept = false;  ///< fill Trace::layers[].kept and tsp_kept
  bool all_logits = false;   ///< logits of every prompt token; nothing may be dropped (full)
  bool record_hidden = false;
  std::int64_t score_rows = 0;  ///< rows whose attention to earlier ones is summed over heads; 0: none (full)
};

/// Runs `tokens` through `backend` under plan.method. `on_layer(l)` is called before each layer.
Prefill prefill(Backend& backend, const ModelConfig& config, const RunPlan& plan, std::span<const std::int32_t> tokens,
                const PrefillOptions& options, const std::function<void(int layer)>& on_layer, RunControl& control);

}  // namespace fastkv
