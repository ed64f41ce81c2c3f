// H2O: the rows that all queries together attend to most, and the window, per query head (spec/methods.md 2.5).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class H2o final : public Method {
 public:
  using Method::Method;
  int stored_heads() const override { return params_.granularity == Granularity::query_head ? heads_ : heads_kv_; }
  LayerPlan plan(int layer, std::int64_t n) const override;
  ScoreNeeds needs(int layer, const LayerPlan& plan) const override;
  LayerChoice select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                     RunControl& control) const override;
};

}  // namespace fastkv
