// Decides everything about a run before the first allocation: context, budgets, bytes.
#pragma once

#include "backend/backend.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

/// Throws Error invalid_option, context_exceeded, bad_input (empty prompt). `weights_loaded`: they no longer have to be
/// found in the available memory.
RunPlan make_plan(const Backend& backend, const ModelConfig& config, std::int64_t n_prompt, const RunOptions& options,
                  bool weights_loaded);

/// Tokens that may be generated: n_predict, or what the context leaves.
std::int64_t generation_limit(const RunPlan& plan, const RunOptions& options);

/// Cache rows to reserve for generated tokens.
std::int64_t reserved_rows(const RunPlan& plan, const RunOptions& options);

}  // namespace fastkv
