// PyramidInfer's recurrence and its scores; what the reference does while generating is left out (Q11).
#include "prefill/methods/pyramidinfer.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fastkv {
namespace {

constexpr std::int64_t kLeastContext = 64, kSinks = 4;

}  // namespace

std::int64_t PyramidInfer::recent_rows() const { return std::min(n_prompt_, truncated(n_prompt_, params_.recent) + 1); }

// n_{ℓ+1} = k + R + 1 of the c = n_ℓ − (R + 1) context tokens, k = int(c·q_ℓ) by a cosine from 1 down to δ
LayerPlan PyramidInfer::plan(int layer, std::int64_t n) const {
  LayerPlan plan{n, n, n, {}};
  if (layer + 1 == n_layer_) return plan;  // S6
  const std::int64_t recent = recent_rows(), c = n - recent, least = std::min(kLeastContext, n_prompt_ - recent);
  const double delta = params_.delta;
  const double q = (1 - delta) * (std::cos(std::numbers::pi * layer / n_layer_) + 1) / 2 + delta;
  if (c > least && q < 1) {
    const std::int64_t k = truncated(c, q);
    plan.tokens_out = (k > least ? k : c) + recent;
  }
  return plan;
}

ScoreNeeds PyramidInfer::needs(int layer, const LayerPlan& plan) const {
  return {layer + 1 < n_layer_ && plan.tokens_out < plan.tokens_in ? recent_rows() : 0};
}

LayerChoice PyramidInfer::select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                                 RunControl& control) const {
  const std::int64_t n = state.n, recent = recent_rows();
  LayerChoice choice = keep_all(n, backend);  // all that entered stay in the cache
  if (needs(layer, plan).rows == 0) return choice;
  // u[j] = Σ_h Σ_m λ_m A_h[n − R − 1 + m, j], λ rising from 1 to γ; the first four always win
  const auto a = backend.column_scores(layer, state, {recent, recent, params_.gamma}, control);
  const auto u = backend.reduce_heads(*a, 1, GroupReduce::sum);
  const std::int64_t sinks = std::min(kSinks, plan.tokens_out - recent);
  choice.next = backend.top_k(*u, n, {plan.tokens_out}, sinks, recent);
  return choice;
}

}  // namespace fastkv
