// FastKV's two selections: rows of K and V per key/value head, and the tokens that go on after the TSP layer.
#include "prefill/methods/fastkv.hpp"

#include <algorithm>

namespace fastkv {

// The last layer drops rows only by shortcut S2, which is the loop's business.
bool FastKv::propagates(int layer) const {
  return layer == params_.tsp_layer && std::size_t(layer) + 1 < layers_.size() &&
         layers_[std::size_t(layer)].tokens_out < layers_[std::size_t(layer)].tokens_in;
}

ScoreNeeds FastKv::needs(int layer) const {
  std::int64_t rows = compresses(layer) ? params_.window : 0;
  if (propagates(layer)) rows = std::max<std::int64_t>(rows, params_.tsp_window);
  return {rows};
}

LayerChoice FastKv::select(int layer, const LayerState& state, Backend& backend, RunControl& control) const {
  const LayerPlan& plan = layers_[std::size_t(layer)];
  const std::int64_t w = params_.window, n = state.n;
  LayerChoice choice;

  // P[h, j]: window attention, pooled before heads are summed
  const auto pooled = [&](const Scores& s) { return backend.pool(s, params_.pooling, params_.kernel); };
  std::unique_ptr<Scores> s, p;
  if (compresses(layer) || (propagates(layer) && params_.tsp_window == w)) {
    s = backend.window_scores(layer, state, w, w, control);
    p = pooled(*s);
  }

  // I_k: the C − w largest g[k, j] = Σ_{h in group k} P[h, j], and the window
  if (compresses(layer)) {
    const auto g = backend.reduce_heads(*p, n_head_kv_, params_.group_reduce);
    choice.keep = backend.top_k(*g, n, plan.kept, params_.sinks, w);
    choice.coverage = backend.coverage(*s, *choice.keep, w);
  } else {
    choice.keep = backend.select_all(n, n_head_kv_);
    choice.coverage = 1.0;
  }

  // J: the T − w largest z[j] = Σ_h P[h, j], and the window; one set for all heads (S7: the same P)
  if (propagates(layer)) {
    if (params_.tsp_window != w) p = pooled(*backend.window_scores(layer, state, params_.tsp_window, params_.tsp_window, control));
    const auto z = backend.reduce_heads(*p, 1, GroupReduce::sum);
    choice.next = backend.top_k(*z, n, plan.tokens_out, params_.sinks, params_.tsp_window);
  }
  return choice;
}

}  // namespace fastkv
