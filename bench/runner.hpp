// One test on one engine: what it runs, and what was measured.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/log.hpp"
#include "common/progress.hpp"
#include "fastkv/engine.hpp"

namespace fastkv::bench {

/// As llama-bench names them: pp512, tg128, pp512+tg128, each perhaps @ d4096.
struct Test {
  std::int64_t n_prompt = 0, n_gen = 0, n_depth = 0;
  std::string name() const;
  std::int64_t tokens() const { return n_prompt + n_gen; }
};

/// One timed run.
struct Sample {
  double ns = 0;       ///< of the test's tokens
  double ttft_ms = 0;  ///< prefill of everything before the first generated token, and choosing it
  double tpot_ms = 0;  ///< per generated token after the first; 0: none
};

struct Measured {
  Test test;
  std::string time;  ///< UTC, ISO 8601, when the test began
  std::vector<Sample> samples;
  std::vector<double> limits;  ///< [samples] of what bounds them, each measured beside its run
  RunPlan plan;                ///< of depth and prompt
  double work_flops = 0;       ///< of the timed part of the prefill
  std::size_t kv_bytes = 0;    ///< stored for depth and prompt
  std::size_t peak_rss = 0;    ///< of the process during this test
};

/// Statistics of a run of `n` random tokens that generates `n_gen` after the first.
struct Run {
  RunPlan plan;
  RunStats stats;
  double first_sample_ms = 0;
};

/// "2026-01-31T12:00:00Z"
std::string utc_now();

class Runner {
 public:
  /// `lines`: a line on stderr for every run (--progress).
  Runner(tools::Log& log, std::int64_t seed, bool lines);

  /// Measures what bounds a test: now, given its runs so far; what it does after each generated token is not timed.
  struct Limit {
    std::function<double(const Measured&)> after_run;
    std::function<void()> after_token = {};
  };
  /// `repetitions` timed runs after `warmup` others, the limit beside each. Throws what Engine::run throws.
  Measured measure(Engine& engine, const RunOptions& options, const Test& test, int repetitions, int warmup,
                   const Limit& limit);

  /// One run under a heading for --progress.
  Run run(Engine& engine, const RunOptions& options, std::int64_t n_prompt, std::int64_t n_gen,
          const std::string& heading, const std::function<void()>& after_token = {});

  void load(Engine& engine);
  /// "benchmark 2/4" before the headings.
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

 private:
  Sample sample(Engine& engine, const RunOptions& options, const Test& test, const std::string& suffix,
                Measured& measured, const std::function<void()>& after_token = {});

  tools::Log& log_;
  std::int64_t seed_;
  bool lines_, terminal_;
  std::string prefix_;
  tools::ProgressReport bar_;
};

}  // namespace fastkv::bench
