// FastKV: token-selective propagation after one layer, a compressed cache in every layer (spec/methods.md 2.2).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class FastKv final : public Method {
 public:
  FastKv(const MethodParams& params, const std::vector<LayerPlan>& layers, int n_head_kv)
      : params_(params), layers_(layers), n_head_kv_(n_head_kv) {}
  ScoreNeeds needs(int layer) const override;
  LayerChoice select(int layer, const LayerState& state, Backend& backend, RunControl& control) const override;

 private:
  bool compresses(int layer) const { return layers_[std::size_t(layer)].kept < layers_[std::size_t(layer)].tokens_in; }
  bool propagates(int layer) const;

  MethodParams params_;
  std::vector<LayerPlan> layers_;
  int n_head_kv_;
};

}  // namespace fastkv
