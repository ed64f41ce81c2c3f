// The report of a run: what is said before it and after it.
#pragma once

#include <string>
#include <vector>

#include "fastkv/engine.hpp"

namespace fastkv::tools {

struct Timings {
  double tokenize_ms = 0;
  double sample_ms = 0;  ///< choosing the first token
  double ttft_ms = 0;    ///< from the start of tokenising to the first token; loading is not part of it
};

/// Model, machine and their settings.
std::vector<std::string> describe_engine(const EngineInfo& info);
/// What the plan says: tokens per stage, memory, notes.
std::vector<std::string> describe_plan(const EngineInfo& info, const RunPlan& plan);
/// One line a memory node: threads, weights, cache, where they are placed on several.
std::vector<std::string> describe_nodes(const RunPlan& plan);
/// One line a layer: rows in, rows on, rows kept.
std::vector<std::string> describe_layers(const RunPlan& plan);

/// llama.cpp's two timing lines, then method, cache and time to first token (spec/cli.md). Of a run that was stopped in
/// its prefill (ttft_ms is 0), `stats.n_prompt` is the number of tokens done, and cache and first token are left out.
std::vector<std::string> summary(const EngineInfo& info, const RunPlan& plan, const RunStats& stats,
                                 const Timings& timings);

/// count per second; 0 when no time was taken.
double per_second(double count, double ms);

}  // namespace fastkv::tools
