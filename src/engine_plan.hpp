// Decides everything about a run before the first allocation: context, budgets, bytes.
#pragma once

#include "backend/backend.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

/// Where the weights are when a plan is made.
struct WeightState {
  bool loaded = false;            ///< they no longer have to be found in the available memory
  std::size_t file_bytes = 0;     ///< of the file in private memory (LoadMode::none)
};

/// Throws Error invalid_option, context_exceeded, bad_input (empty prompt).
RunPlan make_plan(const Backend& backend, const ModelConfig& config, std::int64_t n_prompt, const RunOptions& options,
                  const WeightState& weights);

/// The most tokens below n_prompt whose plan fits the available memory; 0: none do.
std::int64_t longest_prompt(const Backend& backend, const ModelConfig& config, std::int64_t n_prompt,
                            const RunOptions& options, const WeightState& weights);

/// Tokens that a run is to generate or, given a continuation, to feed; −1: no limit.
std::int64_t tokens_asked(const RunOptions& options);

/// Tokens that may be generated: those asked for, or what the context leaves.
std::int64_t generation_limit(const RunPlan& plan, const RunOptions& options);

/// Cache rows to reserve for generated tokens.
std::int64_t reserved_rows(const RunPlan& plan, const RunOptions& options);

}  // namespace fastkv
