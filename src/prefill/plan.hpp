// From options and a prompt's length to the numbers of the method: which tokens each layer sees and keeps. Pure.
#pragma once

#include "core/model_desc.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

/// Parameters after defaults, for a model of `n_layer` layers and a prompt of `n_prompt` tokens. Throws Error
/// invalid_option with the messages of spec/cli.md; adds one line to `notes` for each default or clamp worth saying.
MethodParams resolve(const MethodOptions& options, int n_layer, std::int64_t n_prompt, std::vector<std::string>& notes);

/// Tokens in, out and kept of every layer (spec/methods.md 0.1, 2.1, 2.2, 3).
std::vector<LayerPlan> plan_layers(const MethodParams& params, int n_layer, std::int64_t n_prompt);

/// FLOPs of a prefill: 2 per weight and row of the matrices, 4·H·d per query and visible key.
double prefill_flops(const std::vector<LayerPlan>& layers, const ModelConfig& config);

/// int(x·rate) as the reference computes it: an IEEE double product, truncated.
std::int64_t truncated(std::int64_t n, double rate);

}  // namespace fastkv
