// One run of one prompt.
#include "fastkv-run/runner.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <exception>

#include "common/format.hpp"
#include "common/output.hpp"
#include "common/signals.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// The timings of a run that a signal ended.
void report_stopped(const Engine& engine, const RunPlan& plan, RunStats stats, const Timings& timings,
                    Arguments& arguments) {
  const Progress& last = arguments.progress.last();
  arguments.progress.wipe();
  const bool in_prefill = timings.ttft_ms == 0;
  if (!in_prefill && isatty(STDOUT_FILENO)) write_stdout("\n");
  if (in_prefill) {
    // layer by layer: the tokens' worth of work that was done
    const double done = last.stage == Progress::Stage::prefill ? last.fraction : 0;
    stats.n_prompt = static_cast<std::int64_t>(done * static_cast<double>(plan.n_prompt));
    arguments.log.info(format("stopped in the prompt at %.0f %%", 100 * done));
  } else {
    arguments.log.info("stopped while generating");
  }
  if (stats.peak_rss == 0) {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    stats.peak_rss = static_cast<std::size_t>(usage.ru_maxrss) * 1024;
  }
  if (!arguments.perf) return;
  for (const std::string& line : summary(engine.info(), plan, stats, timings)) arguments.log.info(line);
}

}  // namespace

void check_memory(const Engine& engine, const RunPlan& plan, const RunOptions& options) {
  const MemoryPlan& memory = plan.memory;
  if (options.force || memory.peak() <= memory.available) return;
  std::int64_t fits = 0, too_many = plan.n_prompt;
  while (too_many - fits > 1) {
    const std::int64_t middle = fits + (too_many - fits) / 2;
    const MemoryPlan tried = engine.plan(middle, options).memory;
    (tried.peak() <= memory.available ? fits : too_many) = middle;
  }
  throw Error(ErrorCode::out_of_memory,
              "the run needs " + format_bytes(memory.peak()) + " of memory, " + format_bytes(memory.available) +
                  " is available; " +
                  (fits > 0 ? format("the largest prompt that fits has %lld tokens", static_cast<long long>(fits))
                            : "no prompt fits") +
                  " (--force goes on)");
}

FinishedRun run_prompt(Engine& engine, const Prompt& prompt, const RunOptions& options, Arguments& arguments,
                       const std::function<void(std::string_view)>& text) {
  FinishedRun run;
  run.timings.tokenize_ms = prompt.tokenize_ms;
  Utf8Stream characters;
  StopFilter stops(arguments.stops);
  std::exception_ptr failure;
  RunStats stats;
  const RunPlan plan = engine.plan(static_cast<std::int64_t>(prompt.ids.size()), options);

  Callbacks callbacks;
  callbacks.stop = &stop_flag();
  callbacks.stats = &stats;
  callbacks.on_progress = [&](const Progress& progress) { arguments.progress.update(progress); };
  const Clock::time_point start = Clock::now();
  callbacks.on_token = [&](std::int32_t, std::string_view bytes) {
    if (run.timings.ttft_ms == 0) {
      run.timings.ttft_ms = prompt.tokenize_ms + milliseconds_since(start);
      run.timings.sample_ms = stats.sample_ms;
    }
    try {  // the library is not asked to carry our exceptions
      const std::string ready = stops.push(characters.push(bytes));
      if (!ready.empty()) {
        arguments.progress.wipe();
        text(ready);
      }
    } catch (...) {
      failure = std::current_exception();
      return false;
    }
    return !stops.stopped();
  };
  try {
    run.result = engine.run(prompt.ids, options, callbacks);
    arguments.progress.wipe();
    if (failure) std::rethrow_exception(failure);
    const std::string held = stops.finish();
    if (!held.empty()) text(held);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) report_stopped(engine, plan, stats, run.timings, arguments);
    throw;
  }
  if (run.timings.ttft_ms == 0) {  // nothing was generated
    run.timings.sample_ms = run.result.stats.sample_ms;
    run.timings.ttft_ms = prompt.tokenize_ms + run.result.stats.prefill_ms + run.timings.sample_ms;
  }
  return run;
}

}  // namespace fastkv::tools
