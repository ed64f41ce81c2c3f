// The options that several tools share: model, machine, method, sampling.
#pragma once

#include <string>
#include <vector>

#include "common/cli.hpp"
#include "fastkv/options.hpp"
#include "fastkv/tokenizer.hpp"

namespace fastkv::tools {

/// -m, and those of declare_load_options().
void declare_model_options(CommandLine& command, EngineOptions& options);
/// --load-mode, and the older spellings --mlock, --no-mmap.
void declare_load_options(CommandLine& command, EngineOptions& options);

/// -t, -tb.
void declare_thread_options(CommandLine& command, EngineOptions& options);
/// --compute.
void declare_compute_option(CommandLine& command, EngineOptions& options);
/// CPUs, NUMA, huge pages, GEMM, tiles, ISA, device.
void declare_placement_options(CommandLine& command, EngineOptions& options);

/// -c, -ctk, -ctv, -fa, --force.
void declare_memory_options(
    CommandLine& command, RunOptions& options,
    const char* context_help = "context in tokens; 0 (default): what this run needs, at most the trained context");

/// The flags of a method, FastKV's authors' spellings included.
class MethodFlags {
 public:
  void declare(CommandLine& command);
  /// All but --method, for tools that take a list of methods.
  void declare_parameters(CommandLine& command);
  /// The options as given, each read by one of `compared` at least (empty: by the method given), which messages call
  /// `list_flag`. Throws UsageError for flags that exclude each other or that no such method reads.
  MethodOptions resolve(const CommandLine& command, const std::vector<MethodName>& compared = {},
                        const char* list_flag = "--compare") const;

 private:
  enum class Eviction { constant, proportional };
  enum class Preset { paper, accurate };
  MethodOptions options_;
  std::optional<Eviction> eviction_;
  std::optional<Preset> preset_;
};

/// "full|fastkv|…".
std::string method_words();
/// The method called `name` (authors' spellings too). Throws UsageError.
MethodName parse_method(const std::string& name);
/// Methods to be run in turn.
struct MethodList {
  std::vector<MethodName> methods;
  bool all = false;  ///< written as "all"
  /// Takes headkv, which cannot run without its table, out of "all"; whether it did.
  bool drop_headkv(bool has_table);
};

/// "full,fastkv", none twice, or "all". Throws UsageError.
MethodList parse_methods(const std::string& list);

/// The samplers' flags; -l ID±BIAS is checked against the vocabulary later.
class SamplingFlags {
 public:
  void declare(CommandLine& command);
  /// `greedy`: --temp defaults to 0. Throws UsageError for a bias on an id outside the vocabulary.
  SamplingOptions resolve(bool greedy, const Tokenizer& tokenizer) const;

 private:
  SamplingOptions options_;
  std::optional<float> temperature_;
};

/// CPUs of a hexadecimal mask ("0x5", "ff") or a range ("2-7", "3"), ascending. Throws UsageError.
std::vector<int> parse_cpu_mask(const std::string& text);
std::vector<int> parse_cpu_range(const std::string& text);

}  // namespace fastkv::tools
