// Timing kernels, prompts and generation beside the limits, in alternating rounds.
#include "bench/roofline/roofline.hpp"

#include <algorithm>
#include <cmath>

#include "bench/arguments.hpp"
#include "bench/printer.hpp"
#include "bench/record.hpp"
#include "bench/roofline/kernels.hpp"
#include "bench/statistics.hpp"
#include "common/format.hpp"
#include "common/lists.hpp"
#include "common/signals.hpp"
#include "common/table.hpp"
#include "fastkv/error.hpp"
#include "runtime/parallel.hpp"

namespace fastkv::bench {

namespace {

constexpr std::size_t kStreamBytes = std::size_t{512} << 20, kQuickStreamBytes = std::size_t{32} << 20;
constexpr std::int64_t kProductRows = 2048, kQuickProductRows = 96;
constexpr double kBurstSeconds = 0.02, kQuickBurstSeconds = 0.003;

struct Options {
  EngineOptions engine;
  std::vector<std::int64_t> threads;  // empty: 1 and all
  std::int64_t n_prompt = 8192, n_gen = 32;
  int rounds = 5;
  bool quick = false;
  Format output = Format::md;
  tools::Log log;
};

/// One row of the result.
struct Row {
  std::string name, shape, bound, unit;
  int threads;
  Spread rate;   // per second, in the unit's 10^9, or tokens
  double share;  // of the bound, NaN: none
  double plain;  // of what plain loads read, NaN: not bound by memory
};

std::string unit_of(Bound bound) {
  return bound == Bound::memory || bound == Bound::cache ? "GB/s" : bound == Bound::exponentials ? "Gexp/s" : "Gop/s";
}

/// Limits of each round, then kernels of each round: whatever slows a round down slows both.
void measure_kernels(Limits& limits, int asked, const Options& options, std::vector<Row>& rows) {
  ThreadTeam& team = limits.team(asked);
  const int threads = team.size();
  const std::size_t stream = options.quick ? kQuickStreamBytes : kStreamBytes;
  const double burst = options.quick ? kQuickBurstSeconds : kBurstSeconds;
  const simd::Peaks& peaks = simd::peaks(limits.isa());
  std::vector<double> limit[4], plain;
  const std::vector<Kernel> kernels =
      kernels_of(limits.isa(), team, stream, options.quick ? kQuickProductRows : kProductRows);
  std::vector<std::vector<double>> rates(kernels.size());
  std::vector<std::int64_t> calls(kernels.size(), 0);
  for (int round = 0; round < options.rounds; ++round) {
    limit[0].push_back(limits.operations(peaks.f32, asked));
    limit[1].push_back(limits.operations(peaks.bf16, asked));
    limit[2].push_back(limits.operations(peaks.i8, asked));
    limit[3].push_back(limits.read_bandwidth(stream, asked));
    plain.push_back(limits.read_bandwidth(stream, asked, simd::Reading::plain));
    for (std::size_t k = 0; k < kernels.size(); ++k) {
      if (tools::stop_flag()) throw Error(ErrorCode::cancelled, "stopped");
      const auto repeat = [&](std::int64_t n) {
        return seconds_on(team, [&](int thread) {
          for (std::int64_t i = 0; i < n; ++i) kernels[k].run(thread);
        });
      };
      if (calls[k] == 0) {
        repeat(1);  // touches the buffers
        calls[k] = std::max<std::int64_t>(1, std::llround(burst / std::max(repeat(1), 1e-7)));
      }
      rates[k].push_back(kernels[k].work * static_cast<double>(calls[k]) * threads / repeat(calls[k]));
    }
  }
  const double none = std::nan("");
  const auto add = [&](std::string name, std::string shape, Bound bound, const std::vector<double>& samples,
                       double share, double of_plain) {
    std::vector<double> scaled = samples;
    for (double& x : scaled) x *= 1e-9;
    rows.push_back({std::move(name), std::move(shape), bench::name(bound), unit_of(bound), threads, spread(scaled),
                    share, of_plain});
  };
  const auto limit_row = [&](std::string name, std::string shape, Bound bound, const std::vector<double>& samples) {
    add(std::move(name), std::move(shape), bound, samples, none, none);
  };
  limit_row(std::string("peak f32: ") + peaks.f32.instruction, "registers", Bound::f32, limit[0]);
  limit_row(std::string("peak bf16: ") + peaks.bf16.instruction, "registers", Bound::bf16, limit[1]);
  limit_row(std::string("peak int8: ") + peaks.i8.instruction, "registers", Bound::i8, limit[2]);
  limit_row("read, fetching ahead", tools::format_bytes(stream), Bound::memory, limit[3]);
  limit_row("read, plain loads", tools::format_bytes(stream), Bound::memory, plain);
  // a limit is the most that was seen; noise only lowers it
  const auto share_of = [](const std::vector<double>& samples, const std::vector<double>& most) {
    return spread(samples).median / *std::max_element(most.begin(), most.end());
  };
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    const Bound bound = kernels[k].bound;
    add(kernels[k].name, kernels[k].shape, bound, rates[k],
        bound >= Bound::cache ? none : share_of(rates[k], limit[static_cast<int>(bound)]),
        bound == Bound::memory ? share_of(rates[k], plain) : none);
  }
}

/// Whole prompts and generation, with the same limits.
void measure_model(Limits& limits, int threads, const Options& options, tools::Log& log, std::vector<Row>& rows) {
  EngineOptions engine_options = options.engine;
  engine_options.threads = threads;
  Engine engine(engine_options);
  Runner runner(log, 1, false);
  runner.load(engine);
  RunOptions full;
  full.method.method = MethodName::full;
  for (const Test& test : {Test{options.n_prompt, 0, 0}, Test{0, options.n_gen, 0}}) {
    const Measured measured = runner.measure(engine, full, test, options.quick ? 1 : options.rounds, 1);
    std::vector<double> rates;
    for (const Sample& sample : measured.samples) rates.push_back(1e9 * static_cast<double>(test.tokens()) / sample.ns);
    const bool prompt = test.n_gen == 0;
    rows.push_back({(prompt ? "prefill " : "decode ") + test.name(), engine.info().model_type,
                    prompt ? engine.info().compute : name(Bound::memory), "tokens/s", engine.info().threads,
                    spread(rates), share_of_peak(limits, engine.info(), measured),
                    prompt ? std::nan("") : share_of_plain_read(limits, engine.info(), measured)});
  }
}

std::string percent(double share) { return std::isnan(share) ? "" : tools::format("%.1f %%", 100 * share); }

OrderedJson share_or_null(double share) { return std::isnan(share) ? OrderedJson(nullptr) : OrderedJson(share); }

std::string table_text(const std::vector<Row>& rows) {
  tools::Table table(
      {"kernel", "shape", "threads", "rate", "unit", "spread", "bound by", "of the bound", "of plain loads"});
  for (const Row& row : rows) {
    table.row({row.name, row.shape, tools::format("%d", row.threads), tools::format("%.1f", row.rate.median), row.unit,
               tools::format("%.1f %%", 100 * row.rate.deviation / row.rate.mean), row.bound, percent(row.share),
               percent(row.plain)});
  }
  return table.text();
}

OrderedJson json_of(const Row& row, const std::string& isa) {
  OrderedJson json;
  json["kernel"] = row.name;
  json["shape"] = row.shape;
  json["isa"] = isa;
  json["cpu_info"] = cpu_name();
  json["build_commit"] = build_commit();
  json["n_threads"] = row.threads;
  json["unit"] = row.unit;
  json["median"] = row.rate.median;
  json["stddev"] = row.rate.deviation;
  json["bound"] = row.bound;
  json["share_of_peak"] = share_or_null(row.share);
  json["share_of_plain_read"] = share_or_null(row.plain);
  return json;
}

}  // namespace

int run_roofline(int argc, const char* const* argv) {
  Options options;
  tools::CommandLine command(
      "fastkv-bench roofline", "[-m FILE.gguf] [options]",
      "Measures what this machine can do at most (arithmetic on registers, reading memory), then every\n"
      "kernel, and with -m whole prompts and generation, as shares of it.");
  command.group("What is measured");
  command.option("-m,--model", "FILE", options.engine.model, "prefill and decode of this GGUF file too");
  command.option("-p,--n-prompt", "N", options.n_prompt, "prompt tokens of prefill (default 8192)",
                 tools::Limits<std::int64_t>{1, std::int64_t{1} << 30, "must be 1 or more"});
  command.option("-n,--n-gen", "N", options.n_gen, "tokens of decode (default 32)",
                 tools::Limits<std::int64_t>{1, 1 << 30, "must be 1 or more"});
  command.add("-t,--threads", "LIST", "threads (default: 1, and all physical cores this process may use)",
              [&options](const std::string& text) { options.threads = tools::parse_counts(text, 1); });
  command.option("-r,--repetitions", "N", options.rounds, "rounds of everything; medians are shown (default 5)",
                 tools::Limits<int>{1, 1 << 20, "must be 1 or more"});
  command.flag("--quick", options.quick, "shorter bursts on less memory: shows that all works, not how fast");
  command.group("Machine");
  tools::declare_compute_option(command, options.engine);
  tools::declare_placement_options(command, options.engine);
  command.group("Output");
  command.choice<Format, Format>("-o,--output", options.output,
                                 {{"md", Format::md}, {"json", Format::json}, {"jsonl", Format::jsonl}},
                                 "on stdout (default md)");
  options.log.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  options.log.open();

  tools::stop_flag();  // from here a signal stops between two kernels
  Limits limits(options.engine);
  std::vector<int> counts(options.threads.begin(), options.threads.end());
  if (counts.empty()) {
    counts = {1};
    if (limits.team(0).size() > 1) counts.push_back(0);
  }
  std::vector<Row> rows;
  for (int threads : counts) {
    measure_kernels(limits, threads, options, rows);
    if (!options.engine.model.empty()) measure_model(limits, threads, options, options.log, rows);
  }
  const std::string isa = simd::name(limits.isa());
  if (options.output == Format::md) {
    write_text(stdout, cpu_name() + ", " + isa + tools::format(", medians of %d rounds\n\n", options.rounds) +
                           table_text(rows));
    return 0;
  }
  Arguments unused;
  const auto printer = make_printer(options.output, stdout, unused);
  printer->begin();
  for (const Row& row : rows) printer->print(json_of(row, isa));
  printer->end();
  return 0;
}

}  // namespace fastkv::bench
