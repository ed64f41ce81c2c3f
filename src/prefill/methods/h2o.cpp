// H2O's selection: column sums of the attention matrix, which is never stored (S10).
#include "prefill/methods/h2o.hpp"

#include <algorithm>

namespace fastkv {

LayerPlan H2o::plan(int, std::int64_t n) const {
  const std::int64_t c = budget(n), w = params_.window;
  if (n <= w || n < c) return {n, n, n, {}};
  return {n, n, std::min(n, std::max<std::int64_t>(c, w + params_.sinks)), {}};
}

ScoreNeeds H2o::needs(int, const LayerPlan& plan) const { return {plan.kept < plan.tokens_in ? plan.tokens_in : 0}; }

LayerChoice H2o::select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                        RunControl& control) const {
  const std::int64_t w = params_.window, n = state.n;
  if (plan.kept == n) return keep_all(n, backend, 1.0);
  // s[h, j] = Σ_i A[h, i, j], j < n − w. The authors' mask lets rows see their future, but for the window's in itself
  ColumnScores wanted{n, w};
  if (params_.h2o_mask == H2oMask::reference) wanted.causal_rows = w;
  const auto s = backend.column_scores(layer, state, wanted, control);
  const auto joined = stored_heads() == heads_ ? nullptr : backend.reduce_heads(*s, heads_kv_, params_.group_reduce);
  LayerChoice choice;
  choice.keep = backend.top_k(joined ? *joined : *s, n, {plan.kept}, params_.sinks, w);
  choice.coverage = backend.coverage(*s, *choice.keep, n);
  return choice;
}

}  // namespace fastkv
