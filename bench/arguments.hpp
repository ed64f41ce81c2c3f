// fastkv-bench's command line: llama-bench's options, and lists of methods.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/cli.hpp"
#include "common/log.hpp"
#include "common/options.hpp"

namespace fastkv::bench {

enum class Format { none, csv, json, jsonl, md };

/// The words of -o, for every subcommand.
std::vector<std::pair<std::string, Format>> formats();

struct Arguments {
  std::vector<std::string> models;
  EngineOptions engine;  ///< what is not a list
  RunOptions run;
  std::vector<std::int64_t> n_prompt{512}, n_gen{128}, n_depth{0};
  std::vector<std::pair<std::int64_t, std::int64_t>> prompt_gen;
  std::vector<int> threads{0}, threads_batch{0};
  std::vector<Compute> compute{Compute::automatic};
  std::vector<CacheType> type_k{CacheType::automatic}, type_v{CacheType::automatic};
  tools::MethodList methods{{MethodName::full}};
  std::vector<std::optional<std::int64_t>> tsp_layer{std::nullopt};  ///< nothing: the method's default
  std::vector<std::optional<double>> tsp_rate{std::nullopt}, retention{std::nullopt};
  std::optional<std::string> head_budgets;
  std::int64_t context = 0;  ///< --sweep: the depth to reach
  int repetitions = 5, warmup = 1, delay = 0;
  std::int64_t seed = 1;
  Format output = Format::md, output_err = Format::none;
  bool sweep = false, breakdown = false, edges = false, progress = false;
  std::optional<std::string> suite;
  tools::Log log;

  void declare(tools::CommandLine& command);
  /// Defaults of the modes, conflicts. Throws UsageError.
  void check(const tools::CommandLine& command);
};

}  // namespace fastkv::bench
