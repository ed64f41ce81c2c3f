// PyramidKV: SnapKV with budgets that fall from layer to layer (spec/methods.md 7).
#pragma once

#include "prefill/methods/window_scored.hpp"

namespace fastkv {

class PyramidKv final : public WindowScored {
 public:
  using WindowScored::WindowScored;
  LayerPlan plan(int layer, std::int64_t n) const override;
};

}  // namespace fastkv
