// FastKV's two selections: rows of K and V per key/value head, and the tokens that go on after the TSP layer.
#include "prefill/methods/fastkv.hpp"

#include <algorithm>

namespace fastkv {

LayerPlan FastKv::plan(int layer, std::int64_t n) const {
  const MethodParams& p = params_;
  LayerPlan plan{n, n, n, {}};
  // r up to the TSP layer, r/ρ after it (divided once in double); by tokens: a share of the prompt
  std::int64_t c = budget(n);
  if (p.proportional && layer > p.tsp_layer)
    c = p.tsp_by_rate ? truncated(n, p.retention / p.tsp_rate) : truncated(n_prompt_, p.retention);
  if (n <= p.window || n < c) return plan;  // the early exit skips TSP too
  plan.kept = std::min(n, std::max<std::int64_t>(c, p.window + p.sinks));
  // T; the last layer drops rows only by shortcut S2, which is the loop's business
  if (layer == p.tsp_layer && layer + 1 < n_layer_ && n > p.tsp_window) {
    const std::int64_t t = p.tsp_by_rate ? truncated(n, p.tsp_rate) : p.tsp_tokens;
    plan.tokens_out = std::min(n, std::max<std::int64_t>(t, p.tsp_window + p.sinks));
  }
  return plan;
}

bool FastKv::propagates(int layer, const LayerPlan& plan) const {
  return layer == params_.tsp_layer && layer + 1 < n_layer_ && plan.tokens_out < plan.tokens_in;
}

ScoreNeeds FastKv::needs(int layer, const LayerPlan& plan) const {
  std::int64_t rows = plan.kept < plan.tokens_in ? params_.window : 0;
  if (propagates(layer, plan)) rows = std::max<std::int64_t>(rows, params_.tsp_window);
  return {rows};
}

LayerChoice FastKv::select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                           RunControl& control) const {
  const std::int64_t w = params_.window, tsp_w = params_.tsp_window, n = state.n;
  const bool compresses = plan.kept < n;
  // P[h, j]: attention of the last rows, pooled before heads are summed
  const auto scores = [&](std::int64_t rows) { return backend.column_scores(layer, state, {rows, rows}, control); };
  const std::int64_t half = params_.kernel / 2, shift = params_.tsp_shift;
  const auto pooled = [&](const Scores& s, const PoolWidth& width) { return backend.pool(s, params_.pooling, width); };
  LayerChoice choice;
  std::unique_ptr<Scores> p;

  // I_k: the C − w largest g[k, j] = Σ_{h in group k} P[h, j], and the window
  if (compresses) {
    const auto s = scores(w);
    p = pooled(*s, {half, half});
    const auto g = backend.reduce_heads(*p, heads_kv_, params_.group_reduce);
    choice.keep = backend.top_k(*g, n, {plan.kept}, params_.sinks, w);
    choice.coverage = backend.coverage(*s, *choice.keep, w);
  } else {
    choice = keep_all(n, backend, 1.0);
  }

  // J: the T − w largest z[j] = Σ_h P[h, j], and the window; one set for all heads (S7: the same P)
  if (propagates(layer, plan)) {
    if (!compresses || tsp_w != w || shift != 0) p = pooled(*scores(tsp_w), {half - shift, half + shift});
    const auto z = backend.reduce_heads(*p, 1, GroupReduce::sum);
    choice.next = backend.top_k(*z, n, {plan.tokens_out}, params_.sinks, tsp_w);
  }
  return choice;
}

}  // namespace fastkv
