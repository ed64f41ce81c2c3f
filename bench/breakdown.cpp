// --breakdown: where the time of a prompt and of generation goes, by stage and kind of layer.
#include <algorithm>

#include "bench/modes.hpp"
#include "bench/printer.hpp"
#include "common/format.hpp"
#include "common/table.hpp"

namespace fastkv::bench {

namespace {

/// Neighbouring layers that do the same kind of work.
struct Kind {
  std::string name;
  int first = 0, last = 0;
  StageTimes times;
};

std::vector<Kind> kinds_of(const Run& run) {
  const int filters = static_cast<int>(run.plan.filter_layers.size());  // come first
  const int last = static_cast<int>(run.plan.layers.size()) - 1;
  const MethodParams& method = run.plan.method;
  const bool compressed = method.method == MethodName::fastkv && method.tsp_layer < last;
  std::vector<Kind> kinds;
  for (int i = 0; i < filters + last + 1; ++i) {
    const int l = i < filters ? i : i - filters;
    const std::string name = i < filters             ? "filter"
                             : l == last             ? "last layer"
                             : !compressed           ? "layers"
                             : l < method.tsp_layer  ? "before TSP"
                             : l == method.tsp_layer ? "TSP layer"
                                                     : "after TSP";
    if (kinds.empty() || kinds.back().name != name) kinds.push_back({name, l, l, {}});
    kinds.back().last = l;
    kinds.back().times += run.stats.prefill_layers[static_cast<std::size_t>(i)];
  }
  return kinds;
}

StageTimes prefill_total(const Run& run) {
  StageTimes total = run.stats.prefill_ends;
  for (const StageTimes& layer : run.stats.prefill_layers) total += layer;
  return total;
}

StageTimes scaled(StageTimes times, double factor) {
  for (double& ms : times.ms) ms *= factor;
  return times;
}

std::vector<std::string> row(const std::string& name, const StageTimes& times, double whole, const char* number) {
  std::vector<std::string> cells = {name, tools::format(number, times.total()),
                                    whole > 0 ? tools::format("%.1f %%", 100 * times.total() / whole) : ""};
  for (double ms : times.ms) cells.push_back(tools::format(number, ms));
  return cells;
}

std::vector<std::string> shares(const std::string& name, const StageTimes& times) {
  std::vector<std::string> cells = {name, "", ""};
  for (double ms : times.ms) cells.push_back(tools::format("%.1f %%", 100 * ms / times.total()));
  return cells;
}

std::string table_text(const Run& run) {
  std::vector<std::string> header = {"ms", "total", "share"};
  for (int s = 0; s < kStages; ++s) header.push_back(name(static_cast<Stage>(s)));
  tools::Table table(header);
  const StageTimes total = prefill_total(run);
  for (const Kind& kind : kinds_of(run)) {
    const std::string range =
        kind.first == kind.last ? tools::format(" %d", kind.first) : tools::format(" %d-%d", kind.first, kind.last);
    table.row(row(kind.name + range, kind.times, total.total(), "%.1f"));
  }
  table.row(row("embedding, output head", run.stats.prefill_ends, total.total(), "%.1f"));
  table.row(row("prefill", total, total.total(), "%.1f"));
  table.row(shares("  of it", total));
  if (run.stats.n_decoded > 0) {
    const StageTimes& decode = run.stats.decode_stages;
    table.row(row("a generated token", scaled(decode, 1.0 / static_cast<double>(run.stats.n_decoded)), 0, "%.3f"));
    table.row(shares("  of it", decode));
  }
  return table.text();
}

OrderedJson stages(const StageTimes& times) {
  OrderedJson json;
  for (int s = 0; s < kStages; ++s) json[name(static_cast<Stage>(s))] = times.ms[s];
  return json;
}

OrderedJson json_of(const Run& run, const EngineInfo& info, const EngineOptions& options) {
  OrderedJson json;
  json["model_filename"] = options.model;
  json["model_type"] = info.model_type;
  json["n_threads"] = info.threads;
  json["n_threads_batch"] = info.threads_batch;
  json["compute"] = info.compute;
  json["isa"] = info.isa;
  json["gpu_info"] = info.device;
  json["method"] = name(run.plan.method.method);
  json["n_prompt"] = run.plan.n_prompt;
  json["n_gen"] = run.stats.n_decoded;
  json["prefill_ms"] = run.stats.prefill_ms;
  json["decode_ms"] = run.stats.decode_ms;
  json["prefill"] = OrderedJson::array();
  for (const Kind& kind : kinds_of(run)) {
    json["prefill"].push_back(
        {{"layers", kind.name}, {"first", kind.first}, {"last", kind.last}, {"stages_ms", stages(kind.times)}});
  }
  json["prefill"].push_back({{"layers", "ends"}, {"stages_ms", stages(run.stats.prefill_ends)}});
  json["decode"] = {{"stages_ms", stages(run.stats.decode_stages)}};
  return json;
}

}  // namespace

int run_breakdown(Arguments& arguments) {
  Runner runner(arguments.log, arguments.seed, arguments.progress);
  const bool table = arguments.output == Format::md;
  Output output(arguments, !table);
  output.during([&] {
    for_each_engine(arguments, runner, [&](Engine& engine, const EngineOptions& options) {
      for (const RunOptions& method : run_options(arguments)) {
        for (std::int64_t n_prompt : arguments.n_prompt) {
          const std::int64_t length = std::max<std::int64_t>(1, n_prompt), n_gen = arguments.n_gen.front();
          for (int i = 0; i < arguments.warmup; ++i) runner.run(engine, method, length, 1, "warm-up");
          std::vector<Run> runs;
          for (int i = 0; i < arguments.repetitions; ++i) {
            runs.push_back(runner.run(engine, method, length, n_gen, tools::format("run %d", i + 1)));
          }
          // one real run, so that its parts add up: the one whose prefill is the median
          const auto middle = runs.begin() + static_cast<std::ptrdiff_t>(runs.size() / 2);
          std::nth_element(runs.begin(), middle, runs.end(),
                           [](const Run& a, const Run& b) { return a.stats.prefill_ms < b.stats.prefill_ms; });
          const EngineInfo& info = engine.info();
          if (!table) {
            output.print(json_of(*middle, info, options));
            continue;
          }
          write_text(stdout,
                     tools::format("\n%s, %lld tokens, %s, compute %s, attention %s, %d threads, prompt %d\n\n",
                                   info.model_type.c_str(), static_cast<long long>(length), name(*method.method.method),
                                   info.compute.c_str(), info.attention.c_str(), info.threads, info.threads_batch) +
                         table_text(*middle));
        }
      }
    });
  });
  return 0;
}

}  // namespace fastkv::bench
