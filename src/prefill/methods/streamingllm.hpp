// StreamingLLM: the first rows (sinks) and the most recent ones, C in all; nothing is scored (spec/methods.md 2.4).
#pragma once

#include <algorithm>

#include "prefill/methods/method.hpp"

namespace fastkv {

class StreamingLlm final : public Method {
 public:
  using Method::Method;
  LayerPlan plan(int, std::int64_t n) const override {
    return {n, n, std::min(n, std::max<std::int64_t>(budget(n), params_.sinks + 1)), {}};
  }
  ScoreNeeds needs(int, const LayerPlan&) const override { return {}; }
  LayerChoice select(int, const LayerPlan& plan, const LayerState& state, Backend& backend,
                     RunControl&) const override {
    const std::int64_t sinks = std::min<std::int64_t>(params_.sinks, plan.kept);
    return {backend.select_ends(state.n, sinks, plan.kept - sinks, stored_heads()), nullptr, std::nullopt};
  }
};

}  // namespace fastkv
