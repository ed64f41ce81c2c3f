// TOVA's selection.
#include "prefill/methods/tova.hpp"

#include <algorithm>

namespace fastkv {

LayerPlan Tova::plan(int, std::int64_t n) const {
  return {n, n, std::min(n, std::max<std::int64_t>(budget(n), 1 + params_.sinks)), {}};
}

ScoreNeeds Tova::needs(int, const LayerPlan& plan) const { return {plan.kept < plan.tokens_in ? 1 : 0}; }

LayerChoice Tova::select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                         RunControl& control) const {
  const std::int64_t n = state.n;
  if (plan.kept == n) return keep_all(n, backend, 1.0);
  // Σ_h A[h, n − 1, j]; the last token itself stays
  const auto a = backend.column_scores(layer, state, {1, 1}, control);
  const auto mean = backend.reduce_heads(*a, 1, GroupReduce::sum);
  const auto rows = backend.top_k(*mean, n, {plan.kept}, params_.sinks, 1);
  LayerChoice choice;
  choice.keep = backend.repeat(*rows, stored_heads());
  choice.coverage = backend.coverage(*a, *choice.keep, 1);
  return choice;
}

}  // namespace fastkv
