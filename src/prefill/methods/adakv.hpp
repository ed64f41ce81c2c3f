// AdaKV: SnapKV's scores with a layer's budget shared among its heads by where the best scores lie (spec/methods.md 7).
#pragma once

#include "prefill/methods/window_scored.hpp"

namespace fastkv {

class AdaKv final : public WindowScored {
 public:
  using WindowScored::WindowScored;
  LayerPlan plan(int, std::int64_t n) const override { return {n, n, compresses(n) ? clamped(budget(n), n) : n, {}}; }

 protected:
  std::vector<std::int64_t> kept_rows(const LayerPlan& plan, const Scores& pooled, Backend& backend) const override;
};

}  // namespace fastkv
