// --compare: the same prompt under several methods.
#pragma once

#include "fastkv-run/runner.hpp"

namespace fastkv::tools {

struct ComparedRun {
  MethodName method;
  FinishedRun run;
  std::string text;
};

/// TTFT, tokens/s, tokens computed, cache bytes, coverage, first difference from full, a row per method.
std::string compare_table(const EngineInfo& info, const std::vector<ComparedRun>& runs);

}  // namespace fastkv::tools
