// TOVA: the rows that the last token attends to most, heads averaged: one set for all (spec/methods.md 7).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class Tova final : public Method {
 public:
  using Method::Method;
  LayerPlan plan(int layer, std::int64_t n) const override;
  ScoreNeeds needs(int layer, const LayerPlan& plan) const override;
  LayerChoice select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                     RunControl& control) const override;
};

}  // namespace fastkv
