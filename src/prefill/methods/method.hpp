// What a method decides in each layer; the loop that carries it out is prefill.cpp.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

/// A layer's decision.
struct LayerChoice {
  std::unique_ptr<Selection> keep;  ///< cache rows per stored head
  std::unique_ptr<Selection> next;  ///< rows that go on to the next layer; null: all
  std::optional<double> coverage;   ///< share of the scoring queries' attention mass on kept rows
};

/// One method with its parameters, for one prompt of L tokens. Adding one: a file beside fastkv.cpp that reads like its
/// section of spec/methods.md, a row in make_method(), its options in core/method_options.cpp.
class Method {
 public:
  Method(const MethodParams& params, const ModelConfig& config, std::int64_t n_prompt);
  virtual ~Method() = default;
  /// Heads whose rows are chosen, and stored, apart: K, or H.
  virtual int stored_heads() const { return heads_kv_; }
  /// Tokens on and kept of a layer that n rows enter. Pure.
  virtual LayerPlan plan(int layer, std::int64_t n) const = 0;
  /// Layers of a pass over the whole prompt before the real one, the last of which chooses the real one's prompt.
  virtual std::vector<LayerPlan> filter_plan() const { return {}; }
  /// What begin_layer must leave for select().
  virtual ScoreNeeds needs(int layer, const LayerPlan& plan) const = 0;
  virtual LayerChoice select(int layer, const LayerPlan& plan, const LayerState& state, Backend& backend,
                             RunControl& control) const = 0;

 protected:
  /// C, for a layer that n rows enter (0.1).
  std::int64_t budget(std::int64_t n) const;
  /// Every row, for every stored head; nothing is scored. `coverage`: 1 in methods that have scores in other layers.
  LayerChoice keep_all(std::int64_t n, Backend& backend, std::optional<double> coverage = std::nullopt) const;

  MethodParams params_;
  int n_layer_, heads_, heads_kv_;
  std::int64_t n_prompt_;  ///< L
};

std::unique_ptr<Method> make_method(const MethodParams& params, const ModelConfig& config, std::int64_t n_prompt);

/// int(x·rate) as the reference computes it: an IEEE double product, truncated.
std::int64_t truncated(std::int64_t n, double rate);

}  // namespace fastkv
