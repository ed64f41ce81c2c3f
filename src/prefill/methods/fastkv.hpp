// FastKV: token-selective propagation after one layer, a compressed cache in every layer (spec/methods.md 2.2).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class FastKv final : public Method {
 public:
  using Method::Method;
  LayerPlan plan(int layer, std::int64_t n) const override;
  ScoreNeeds needs(int layer, const LayerPlan& plan) const override;
  LayerChoice select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                     RunControl& control) const override;

 private:
  bool propagates(int layer, const LayerPlan& plan) const;
};

}  // namespace fastkv
