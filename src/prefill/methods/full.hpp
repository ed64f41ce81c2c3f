// Full attention: every row of every layer is kept (spec/methods.md 2.1).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class Full final : public Method {
 public:
  using Method::Method;
  LayerPlan plan(int, std::int64_t n) const override { return {n, n, n, {}}; }
  ScoreNeeds needs(int, const LayerPlan&) const override { return {}; }
  LayerChoice select(int, const LayerPlan&, const LayerState& state, Backend& backend, RunControl&) const override {
    return keep_all(state.n, backend);
  }
};

}  // namespace fastkv
