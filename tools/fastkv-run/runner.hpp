// One run of one prompt: plan, callbacks, streamed text, statistics also of a run that is stopped.
#pragma once

#include <functional>
#include <string_view>

#include "common/summary.hpp"
#include "fastkv-run/arguments.hpp"
#include "fastkv-run/prompt.hpp"

namespace fastkv::tools {

struct FinishedRun {
  RunResult result;
  Timings timings;
};

/// Throws Error out_of_memory if the plan exceeds what is available (unless forced), naming the largest prompt that
/// fits.
void check_memory(const Engine& engine, const RunPlan& plan, const RunOptions& options);

/// Runs `prompt` and passes the text on as it comes, in whole UTF-8 characters, up to the first stop string. A run that
/// is stopped prints its timings so far before Error cancelled goes on.
FinishedRun run_prompt(Engine& engine, const Prompt& prompt, const RunOptions& options, Arguments& arguments,
                       const std::function<void(std::string_view)>& text);

}  // namespace fastkv::tools
