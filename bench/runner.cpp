// Timed runs of random prompts.
#include "bench/runner.hpp"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <random>

#include "bench/roofline/limits.hpp"
#include "common/format.hpp"
#include "common/signals.hpp"
#include "fastkv/error.hpp"

namespace fastkv::bench {

namespace {

constexpr int kRepeats = 10;  // of a difference of two prefills that came out below zero

std::vector<std::int32_t> random_prompt(std::int64_t n, int n_vocab, std::int64_t seed) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % static_cast<unsigned>(n_vocab));
  return ids;
}

}  // namespace

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::tm parts{};
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
  return text;
}

std::string Test::name() const {
  std::string text;
  if (n_prompt > 0) text = tools::format("pp%lld", static_cast<long long>(n_prompt));
  if (n_gen > 0) text += tools::format("%stg%lld", text.empty() ? "" : "+", static_cast<long long>(n_gen));
  if (n_depth > 0) text += tools::format(" @ d%lld", static_cast<long long>(n_depth));
  return text;
}

Runner::Runner(tools::Log& log, std::int64_t seed, bool lines)
    : log_(log), seed_(seed), lines_(lines), terminal_(isatty(STDERR_FILENO)) {
  bar_.start(log, isatty(STDOUT_FILENO));
}

void Runner::load(Engine& engine) {
  Callbacks callbacks;
  callbacks.stop = &tools::stop_flag();
  if (terminal_) callbacks.on_progress = [this](const Progress& progress) { bar_.update(progress); };
  engine.load(callbacks);
  bar_.wipe();
}

Run Runner::run(Engine& engine, const RunOptions& options, std::int64_t n_prompt, std::int64_t n_gen,
                const std::string& heading, const std::function<void()>& after_token) {
  if (lines_) log_.info("fastkv-bench: " + prefix_ + heading);
  RunOptions all = options;
  all.n_predict = static_cast<int>(n_gen) + 1;  // the first token is prefill's
  all.context = static_cast<int>(n_prompt + n_gen + 1);
  all.sampling.temperature = 0;
  all.sampling.ignore_eos = true;
  Callbacks callbacks;
  callbacks.stop = &tools::stop_flag();
  if (terminal_) callbacks.on_progress = [this](const Progress& progress) { bar_.update(progress); };
  Run run;
  RunStats stats;
  callbacks.stats = &stats;
  callbacks.on_token = [&](std::int32_t, std::string_view) {
    if (run.first_sample_ms == 0) run.first_sample_ms = stats.sample_ms;
    if (after_token) after_token();
    return true;
  };
  RunResult result = engine.run(random_prompt(n_prompt, engine.info().n_vocab, seed_), all, callbacks);
  bar_.wipe();
  run.plan = std::move(result.plan);
  run.stats = std::move(result.stats);
  return run;
}

Sample Runner::sample(Engine& engine, const RunOptions& options, const Test& test, const std::string& suffix,
                      Measured& measured, const std::function<void()>& after_token) {
  double before_ms = 0;  // prefill of the depth alone
  measured.work_flops = 0;
  if (test.n_prompt > 0 && test.n_depth > 0) {
    const Run depth = run(engine, options, test.n_depth, 0, "depth run" + suffix);
    before_ms = depth.stats.prefill_ms;
    measured.work_flops = -depth.plan.prefill_flops;
  }
  const std::int64_t all = std::max<std::int64_t>(1, test.n_depth + test.n_prompt);
  const Run whole = run(engine, options, all, test.n_gen,
                        (test.n_prompt > 0 ? "prompt run" : "generation run") + suffix, after_token);
  measured.work_flops += whole.plan.prefill_flops;
  measured.plan = whole.plan;
  measured.kv_bytes = whole.stats.cache_bytes;
  measured.peak_rss = std::max(measured.peak_rss, whole.stats.peak_rss);
  Sample sample;
  sample.ttft_ms = whole.stats.prefill_ms + whole.first_sample_ms;
  if (test.n_gen > 0) sample.tpot_ms = whole.stats.decode_ms / static_cast<double>(whole.stats.n_decoded);
  const double prompt_ms = test.n_prompt > 0 ? whole.stats.prefill_ms - before_ms : 0;
  sample.ns = 1e6 * (prompt_ms + (test.n_gen > 0 ? whole.stats.decode_ms : 0));
  return sample;
}

Measured Runner::measure(Engine& engine, const RunOptions& options, const Test& test, int repetitions, int warmup,
                         const Limit& limit) {
  reset_peak_memory();
  Measured measured;
  measured.test = test;
  measured.time = utc_now();
  for (int i = 0; i < warmup; ++i) {
    // a warm-up of generation needs no long prompt: what it warms is the weights
    Test short_test = test;
    if (test.n_prompt == 0) short_test = {0, std::min<std::int64_t>(test.n_gen, 8), 0};
    sample(engine, options, short_test, tools::format(" (warm-up %d/%d)", i + 1, warmup), measured);
  }
  for (int i = 0; i < repetitions; ++i) {
    const std::string suffix = tools::format(" %d/%d", i + 1, repetitions);
    Sample timed = sample(engine, options, test, suffix, measured, limit.after_token);
    for (int again = 0; timed.ns <= 0 && again < kRepeats; ++again) {
      timed = sample(engine, options, test, suffix, measured, limit.after_token);
    }
    if (timed.ns <= 0) {
      throw Error(ErrorCode::bad_input, test.name() + ": less time than the noise of the prefill before it; raise -p");
    }
    measured.samples.push_back(timed);
    measured.limits.push_back(limit.after_run(measured));
    reset_peak_memory();  // of the limit's buffers
  }
  return measured;
}

}  // namespace fastkv::bench
