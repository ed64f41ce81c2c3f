// GemFilter: one layer's attention of the last token chooses the prompt of a second, complete pass
// (spec/methods.md 2.6).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class GemFilter final : public Method {
 public:
  using Method::Method;
  /// Of the second pass, which k tokens enter.
  LayerPlan plan(int, std::int64_t n) const override { return {n, n, n, {}}; }
  std::vector<LayerPlan> filter_plan() const override;
  ScoreNeeds needs(int layer, const LayerPlan& plan) const override;
  LayerChoice select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                     RunControl& control) const override;
};

}  // namespace fastkv
