// --suite fastkv: the authors' latency benchmark, methods in turn, with speed-ups over the first one.
#include <algorithm>

#include "bench/modes.hpp"
#include "bench/printer.hpp"
#include "bench/statistics.hpp"
#include "common/format.hpp"
#include "common/table.hpp"

namespace fastkv::bench {

namespace {

constexpr std::int64_t kWarmup = 512;

/// What one run gives: the prompt's test and the generation's at that depth.
struct Pair {
  Measured prompt, generation;
};

void add(Pair& pair, const Run& run, const EngineInfo& info, Limits& limits) {
  Sample sample;
  sample.ttft_ms = run.stats.prefill_ms + run.first_sample_ms;
  sample.tpot_ms = run.stats.decode_ms / static_cast<double>(run.stats.n_decoded);
  for (Measured* measured : {&pair.prompt, &pair.generation}) {
    sample.ns = 1e6 * (measured == &pair.prompt ? run.stats.prefill_ms : run.stats.decode_ms);
    measured->samples.push_back(sample);
    measured->plan = run.plan;
    measured->work_flops = run.plan.prefill_flops;
    measured->kv_bytes = run.stats.cache_bytes;
    measured->peak_rss = std::max(measured->peak_rss, run.stats.peak_rss);
  }
  // generation, which was last, first
  for (Measured* measured : {&pair.generation, &pair.prompt})
    measured->limits.push_back(limit_of(limits, info, *measured));
}

double ttft_seconds(const Measured& measured) {
  std::vector<double> all;
  for (const Sample& sample : measured.samples) all.push_back(sample.ttft_ms / 1000);
  return spread(all).median;
}

Spread seconds(const Measured& measured) {
  std::vector<double> all;
  for (const Sample& sample : measured.samples) all.push_back(sample.ns * 1e-9);
  return spread(all);
}

std::string per_second(const Test& test, const Spread& time) {
  return tools::format("%.2f", static_cast<double>(test.tokens()) / time.median);
}

std::string times(const Spread& faster) { return tools::format("%.2fx ± %.2f", faster.median, faster.deviation); }

}  // namespace

int run_suite(Arguments& arguments) {
  Runner runner(arguments.log, arguments.seed, arguments.progress);
  const std::vector<RunOptions> methods = run_options(arguments);
  const std::int64_t n_gen = arguments.n_gen[0];
  Limits limits(arguments.engine);
  const bool table_wanted = arguments.output == Format::md;
  Output output(arguments, !table_wanted);
  output.during([&] {
    for_each_engine(arguments, runner, [&](Engine& engine, const EngineOptions& options) {
      const EngineInfo& info = engine.info();
      tools::Table table({"prompt", "method", "prefill s", "t/s", "speed-up", "TTFT s", "tg t/s", "speed-up",
                          "KV cache", "peak RSS", "pp of peak", "tg of peak"});
      for (int i = 0; i < arguments.warmup; ++i) {
        for (const RunOptions& method : methods) runner.run(engine, method, kWarmup, 8, "warm-up");
      }
      for (std::int64_t length : arguments.n_prompt) {
        std::vector<Pair> pairs(methods.size());
        for (Pair& pair : pairs) pair.prompt.test = {length, 0, 0}, pair.generation.test = {0, n_gen, length};
        for (int repetition = 0; repetition < arguments.repetitions; ++repetition) {
          for (std::size_t m = 0; m < methods.size(); ++m) {  // in turn, so that a slow minute hits all of them
            reset_peak_memory();
            add(pairs[m],
                runner.run(engine, methods[m], length, n_gen,
                           tools::format("%lld tokens, %s %d/%d", static_cast<long long>(length),
                                         name(*methods[m].method.method), repetition + 1, arguments.repetitions)),
                info, limits);
          }
        }
        for (std::size_t m = 0; m < methods.size(); ++m) {
          Pair& pair = pairs[m];
          pair.prompt.time = pair.generation.time = utc_now();
          const double of_peak = share_of(pair.prompt, pair.prompt.limits),
                       of_bandwidth = share_of(pair.generation, pair.generation.limits);
          output.print(make_record(info, {options, methods[m]}, pair.prompt, of_peak));
          output.print(make_record(info, {options, methods[m]}, pair.generation, of_bandwidth));
          const Spread prefill = seconds(pair.prompt), generation = seconds(pair.generation);
          table.row({tools::format("%lld", static_cast<long long>(length)), name(*methods[m].method.method),
                     tools::format("%.2f", prefill.median), per_second(pair.prompt.test, prefill),
                     m == 0 ? "" : times(ratio(seconds(pairs[0].prompt), prefill)),
                     tools::format("%.2f", ttft_seconds(pair.prompt)), per_second(pair.generation.test, generation),
                     m == 0 ? "" : times(ratio(seconds(pairs[0].generation), generation)),
                     tools::format_bytes(pair.prompt.kv_bytes), tools::format_bytes(pair.prompt.peak_rss),
                     tools::format("%.1f %%", 100 * of_peak), tools::format("%.1f %%", 100 * of_bandwidth)});
        }
      }
      if (table_wanted) {
        write_text(stdout, tools::format("%s, %lld tokens generated, compute %s, %d threads, medians of %d\n\n",
                                         info.model_type.c_str(), static_cast<long long>(n_gen), info.compute.c_str(),
                                         info.threads, arguments.repetitions) +
                               table.text());
      }
    });
  });
  return 0;
}

}  // namespace fastkv::bench
