// What fastkv-run does with its command line, from opening the model to the last file written.
#pragma once

#include <optional>

#include "fastkv-run/compare.hpp"

namespace fastkv::tools {

class Session {
 public:
  /// `arguments` must outlive the session; `command` has been parsed into it.
  Session(const CommandLine& command, Arguments& arguments);

  /// Plans, loads, answers, reports. Returns the exit status 0; everything else is thrown.
  int run();

 private:
  bool comparing() const { return !arguments_.compare.methods.empty(); }
  RunOptions options_for(MethodName method) const;
  void announce();
  void answer(const Prompt& prompt);
  void compare(const Prompt& prompt);
  void report(const FinishedRun& run);
  void write_statistics() const;

  const CommandLine& command_;
  Arguments& arguments_;
  MethodOptions method_;             // as given; the library resolves it
  std::vector<MethodName> methods_;  // that run: one, or those of --compare
  bool without_headkv_ = false;      // "all" was asked for, and it has no table
  SamplingOptions sampling_;
  std::optional<Engine> engine_;
  std::vector<Prompt> prompts_;
  std::vector<std::string> statistics_;  // JSON of the runs so far
  bool on_terminal_;                     // stdout is one
};

}  // namespace fastkv::tools
