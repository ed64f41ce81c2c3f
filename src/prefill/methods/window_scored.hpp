// What SnapKV, PyramidKV, AdaKV and HeadKV share: attention of the window, pooled, chooses rows per stored head; they
// differ in how many each head keeps (spec/methods.md 0.2-0.4, 2.3).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class WindowScored : public Method {
 public:
  using Method::Method;
  int stored_heads() const override { return params_.granularity == Granularity::query_head ? heads_ : heads_kv_; }
  ScoreNeeds needs(int layer, const LayerPlan& plan) const override;
  LayerChoice select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                     RunControl& control) const override;

 protected:
  /// Whether a layer of n rows is compressed: not if n < C, nor if there is only the window (0.1, section 3).
  bool compresses(std::int64_t n) const { return n > params_.window && n >= budget(n); }
  /// `rows` of n within what can be kept: the window and the first rows at least.
  std::int64_t clamped(std::int64_t rows, std::int64_t n) const;
  /// Rows kept of each stored head, or one number for all; `pooled` [stored heads, n − w].
  virtual std::vector<std::int64_t> kept_rows(const LayerPlan& plan, const Scores& pooled, Backend& backend) const;
};

}  // namespace fastkv
