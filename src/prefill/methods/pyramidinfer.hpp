// PyramidInfer: every layer passes on fewer tokens, chosen by the attention of the recent ones (spec/methods.md 2.7).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class PyramidInfer final : public Method {
 public:
  using Method::Method;
  LayerPlan plan(int layer, std::int64_t n) const override;
  ScoreNeeds needs(int layer, const LayerPlan& plan) const override;
  LayerChoice select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                     RunControl& control) const override;

 private:
  /// R + 1: rows that score, and always go on.
  std::int64_t recent_rows() const;
};

}  // namespace fastkv
