// SnapKV: the C − w rows of the best pooled window scores, and the window, per query head (spec/methods.md 2.3).
#pragma once

#include "prefill/methods/window_scored.hpp"

namespace fastkv {

class SnapKv final : public WindowScored {
 public:
  using WindowScored::WindowScored;
  LayerPlan plan(int, std::int64_t n) const override { return {n, n, compresses(n) ? clamped(budget(n), n) : n, {}}; }
};

}  // namespace fastkv
