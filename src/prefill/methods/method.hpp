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
  std::unique_ptr<Selection> keep;   ///< cache rows per stored head
  std::unique_ptr<Selection> next;   ///< rows that go on to the next layer; null: all
  std::optional<double> coverage;    ///< share of the scoring queries' attention mass on kept rows
};

/// One method with its parameters for one prompt. Adding one: a file beside fastkv.cpp, a row in make_method().
class Method {
 public:
  virtual ~Method() = default;
  /// What begin_layer must leave for select().
  virtual ScoreNeeds needs(int layer) const = 0;
  virtual LayerChoice select(int layer, const LayerState& state, Backend& backend, RunControl& control) const = 0;
};

/// `layers` as planned for the prompt (plan_layers).
std::unique_ptr<Method> make_method(const MethodParams& params, const std::vector<LayerPlan>& layers,
                                    const ModelConfig& config);

}  // namespace fastkv
