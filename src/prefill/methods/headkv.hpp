// HeadKV: SnapKV's scores with a budget of its own for every head, from a table made offline (spec/methods.md 2.8).
#pragma once

#include "prefill/methods/window_scored.hpp"

namespace fastkv {

class HeadKv final : public WindowScored {
 public:
  using WindowScored::WindowScored;
  LayerPlan plan(int layer, std::int64_t n) const override;
};

/// a[ℓ, h] [N·H]: the mean of each head's values in a JSON file {"layer-head": [values…]}, as shares of their sum.
/// Throws Error: io, bad_file (expected, found, where).
std::vector<double> read_head_shares(const std::string& path, int n_layer, int n_head);

}  // namespace fastkv
