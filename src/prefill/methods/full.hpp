// Full attention: every row of every layer is kept (spec/methods.md 2.1).
#pragma once

#include "prefill/methods/method.hpp"

namespace fastkv {

class Full final : public Method {
 public:
  explicit Full(int n_head_kv) : n_head_kv_(n_head_kv) {}
  ScoreNeeds needs(int) const override { return {}; }
  LayerChoice select(int, const LayerState& state, Backend& backend, RunControl&) const override {
    return {backend.select_all(state.n, n_head_kv_), nullptr, std::nullopt};
  }

 private:
  int n_head_kv_;
};

}  // namespace fastkv
