// --edges: whether a token more makes all of them slower, around the lengths where the work changes its kind.
#include <algorithm>

#include "bench/modes.hpp"
#include "bench/printer.hpp"
#include "bench/statistics.hpp"
#include "common/format.hpp"
#include "common/table.hpp"

namespace fastkv::bench {

namespace {

constexpr std::int64_t kBudgets[] = {128, 512};

/// Prompts of n and n + 1 tokens: the second has one row more than a tile, a window or a budget.
struct Edge {
  std::string of;
  std::int64_t n;
  RunOptions options;
};

std::vector<Edge> edges(const RunOptions& options, const std::vector<std::int64_t>& lengths) {
  const MethodName method = *options.method.method;
  std::vector<Edge> all;
  for (std::int64_t n : lengths) all.push_back({"length", n, options});
  if (reads(method, "--window")) {
    for (const int window : {8, 16, 32, 64}) {
      all.push_back({"--window", window, options});
      all.back().options.method.window = window;
    }
  }
  for (const std::int64_t budget : kBudgets) {
    if (reads(method, "--kv-budget")) {
      all.push_back({"--kv-budget", budget, options});
      all.back().options.method.retention.reset();
      all.back().options.method.kv_budget = budget;
    }
    if (reads(method, "--tsp-tokens")) {
      all.push_back({"--tsp-tokens", budget, options});
      all.back().options.method.tsp_rate.reset();
      all.back().options.method.tsp_tokens = budget;
    }
  }
  return all;
}

/// The timed runs of one length.
struct Length {
  std::vector<double> ms;
  std::vector<StageTimes> stages;
};

StageTimes prefill_stages(const RunStats& stats) {
  StageTimes total = stats.prefill_ends;
  for (const StageTimes& layer : stats.prefill_layers) total += layer;
  return total;
}

OrderedJson json_of(const Length& runs) {
  OrderedJson json;
  json["prefill_ms"] = spread(runs.ms).median;
  for (int s = 0; s < kStages; ++s) {
    std::vector<double> ms;
    for (const StageTimes& stages : runs.stages) ms.push_back(stages.ms[s]);
    json["stages_ms"][name(static_cast<Stage>(s))] = spread(ms).median;
  }
  return json;
}

OrderedJson json_of(const Edge& edge, const EngineInfo& info, const Length (&runs)[2], const Spread& times) {
  OrderedJson json;
  json["model_type"] = info.model_type;
  json["compute"] = info.compute;
  json["isa"] = info.isa;
  json["n_threads_batch"] = info.threads_batch;
  json["method"] = name(*edge.options.method.method);
  json["edge"] = edge.of;
  json["n"] = edge.n;
  json["at_n"] = json_of(runs[0]);
  json["at_n_plus_1"] = json_of(runs[1]);
  json["per_token_ratio"] = times.median;
  json["per_token_ratio_stddev"] = times.deviation;
  return json;
}

}  // namespace

int run_edges(Arguments& arguments) {
  Runner runner(arguments.log, arguments.seed, arguments.progress);
  const bool table_wanted = arguments.output == Format::md;
  Output output(arguments, !table_wanted);
  output.during([&] {
    for_each_engine(arguments, runner, [&](Engine& engine, const EngineOptions&) {
      const EngineInfo& info = engine.info();
      tools::Table table({"method", "edge", "n", "ms at n", "at n + 1", "per token"});
      for (const RunOptions& options : run_options(arguments)) {
        for (const Edge& edge : edges(options, arguments.n_prompt)) {
          Length runs[2];
          std::vector<double> ratios;
          for (int i = -arguments.warmup; i < arguments.repetitions; ++i) {
            for (int more : {0, 1}) {  // in turn, so that a slow moment hits both
              const Run run = runner.run(engine, edge.options, edge.n + more, 0, edge.of);
              if (i < 0) continue;
              runs[more].ms.push_back(run.stats.prefill_ms);
              runs[more].stages.push_back(prefill_stages(run.stats));
            }
            const double n = static_cast<double>(edge.n);
            if (i >= 0) ratios.push_back(runs[1].ms.back() / (n + 1) / (runs[0].ms.back() / n));
          }
          const Spread times = spread(ratios);
          output.print(json_of(edge, info, runs, times));
          table.row({name(*options.method.method), edge.of, tools::format("%lld", static_cast<long long>(edge.n)),
                     tools::format("%.2f", spread(runs[0].ms).median), tools::format("%.2f", spread(runs[1].ms).median),
                     tools::format("%.3f ± %.3f", times.median, times.deviation)});
        }
      }
      if (table_wanted)
        write_text(stdout, tools::format("%s, compute %s, %d threads, medians of %d\n\n", info.model_type.c_str(),
                                         info.compute.c_str(), info.threads_batch, arguments.repetitions) +
                               table.text());
    });
  });
  return 0;
}

}  // namespace fastkv::bench
