// fastkv-run's command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/chat.hpp"
#include "common/log.hpp"
#include "common/options.hpp"
#include "common/progress.hpp"

namespace fastkv::tools {

/// Where the prompt comes from.
struct PromptArguments {
  std::optional<std::string> prompt, file, system, tokens;
  std::vector<std::string> questions;
  ChatFlags chat;
  bool escape = true, display = false;

  bool any_text() const { return prompt || file || !questions.empty(); }
};

struct Arguments {
  EngineOptions engine;
  RunOptions run;  // without method and sampling, which need more than the flags
  MethodFlags method;
  SamplingFlags sampling;
  PromptArguments prompt;
  std::string trace, save_logits, perf_json;
  MethodList compare;  // empty: one method
  std::vector<std::string> stops;
  bool dry_run = false, perf = true;
  Log log;
  ProgressReport progress;

  void declare(CommandLine& command);
  /// What excludes each other or is missing. Throws UsageError.
  void check(const CommandLine& command) const;
};

}  // namespace fastkv::tools
