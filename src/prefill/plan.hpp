// From options and a prompt's length to the numbers of the method: which tokens each layer sees and keeps. Pure.
#pragma once

#include "core/model_desc.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

/// Parameters after defaults, for a model of this shape and a prompt of `n_prompt` tokens. Throws Error invalid_option
/// with the messages of spec/cli.md; adds one line to `notes` for each default or clamp worth saying.
MethodParams resolve(const MethodOptions& options, const ModelConfig& config, std::int64_t n_prompt,
                     std::vector<std::string>& notes);

/// RunPlan's layers, filter_layers and stored_heads: tokens in, out and kept of every layer, as the method plans them.
void plan_layers(RunPlan& plan, const ModelConfig& config);
/// The most query rows that score a layer's keys.
std::int64_t scoring_rows(const RunPlan& plan, const ModelConfig& config);

/// FLOPs of a prefill: 2 per weight and row of the matrices, 4·H·d per query and visible key.
double prefill_flops(const RunPlan& plan, const ModelConfig& config);

}  // namespace fastkv
