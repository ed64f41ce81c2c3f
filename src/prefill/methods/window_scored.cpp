// Window scores to kept rows.
#include "prefill/methods/window_scored.hpp"

#include <algorithm>

namespace fastkv {

std::int64_t WindowScored::clamped(std::int64_t rows, std::int64_t n) const {
  return std::min(n, std::max<std::int64_t>(rows, params_.window + params_.sinks));
}

ScoreNeeds WindowScored::needs(int, const LayerPlan& plan) const {
  return {compresses(plan.tokens_in) ? params_.window : 0};
}

std::vector<std::int64_t> WindowScored::kept_rows(const LayerPlan& plan, const Scores&, Backend&) const {
  return plan.head_kept.empty() ? std::vector{plan.kept} : plan.head_kept;
}

LayerChoice WindowScored::select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                                 RunControl& control) const {
  const std::int64_t w = params_.window, n = state.n;
  if (!compresses(n)) return keep_all(n, backend, 1.0);
  // P[h, j]; per key/value head a group's scores are joined before they are pooled
  const auto s = backend.column_scores(layer, state, {w, w}, control);
  const auto joined = stored_heads() == heads_ ? nullptr : backend.reduce_heads(*s, heads_kv_, params_.group_reduce);
  const auto p = backend.pool(joined ? *joined : *s, params_.pooling, {params_.kernel / 2, params_.kernel / 2});
  LayerChoice choice;
  const std::int64_t sinks = std::min<std::int64_t>(params_.sinks, n - w);
  choice.keep = backend.top_k(*p, n, kept_rows(plan, *p, backend), sinks, w);
  choice.coverage = backend.coverage(*s, *choice.keep, w);
  return choice;
}

}  // namespace fastkv
