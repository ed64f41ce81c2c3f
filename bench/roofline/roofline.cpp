// Timing kernels, prompts and generation beside the limits, in alternating rounds.
#include "bench/roofline/roofline.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/arguments.hpp"
#include "bench/printer.hpp"
#include "bench/record.hpp"
#include "bench/roofline/rows.hpp"
#include "common/format.hpp"
#include "common/lists.hpp"
#include "common/signals.hpp"
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
  std::int64_t n_prompt = 8192, n_gen = 32, n_depth = 0;
  std::vector<MethodName> methods = {MethodName::full};
  int rounds = 5;
  bool quick = false;
  Format output = Format::md;
  tools::Log log;
};

/// The CPU's kernels on `asked` threads beside its limits.
void measure_cpu(Limits& limits, int asked, const Options& options, std::vector<Row>& rows) {
  ThreadTeam& team = limits.team(asked);
  const std::size_t stream = options.quick ? kQuickStreamBytes : kStreamBytes;
  const simd::Peaks& peaks = simd::peaks(limits.isa());
  const auto peak = [&](const char* name, const simd::PeakLoop& loop, Bound bound) {
    return Limit{std::string("peak ") + name + ": " + loop.instruction, "registers", bound,
                 [&limits, &loop, asked] { return limits.operations(loop, asked); }};
  };
  MemoryReader reader = limits.reader(stream, asked);
  const auto read = [&](const char* name, simd::Reading reading) {
    return Limit{name, tools::format_bytes(stream), Bound::memory, [&reader, reading] {
                   return reader.best({&reading, 1});
                 }};
  };
  const std::vector<Kernel> kernels =
      kernels_of(limits.isa(), team, stream, options.quick ? kQuickProductRows : kProductRows);
  std::vector<Timed> timed;
  for (const Kernel& kernel : kernels) {
    timed.push_back(
        {kernel.name, kernel.shape, kernel.bound, kernel.work * team.size(), 1, [&team, &kernel](std::int64_t n) {
           return seconds_on(team, [&](int thread) {
             for (std::int64_t i = 0; i < n; ++i) kernel.run(thread);
           });
         }});
  }
  measure({peak("f32", peaks.f32, Bound::f32), peak("bf16", peaks.bf16, Bound::bf16), peak("int8", peaks.i8, Bound::i8),
           read("read, plain loads", simd::Reading::plain), read("read, fetching ahead", simd::Reading::fetching)},
          timed, {options.rounds, options.quick ? kQuickBurstSeconds : kBurstSeconds, team.size(), false}, rows);
}

/// What is measured on a device with --quick.
RooflineSizes quick_sizes() {
  return {.edge = 256,
          .stream_bytes = std::size_t{64} << 10,
          .rows = {16},
          .keys = {128},
          .cached = {256},
          .burst_seconds = kQuickBurstSeconds};
}

DecoderShape shape_of(const EngineInfo& info) {
  return {info.n_embd, info.n_ff, info.n_head, info.n_head_kv, info.head_dim, info.n_vocab};
}

/// A device's kernels beside its limits.
void measure_device(DeviceRoofline& device, const DecoderShape& shape, const Options& options, std::vector<Row>& rows) {
  const RooflineSizes sizes = options.quick ? quick_sizes() : RooflineSizes();
  const std::vector<DeviceKernel> kernels = device.kernels(shape);
  std::vector<Timed> timed;
  for (const DeviceKernel& kernel : kernels) {
    const Bound bound = kernel.bound == DeviceKernel::Bound::products ? Bound::bf16
                        : kernel.bound == DeviceKernel::Bound::memory ? Bound::memory
                                                                      : Bound::cache;
    timed.push_back({kernel.name, kernel.shape, bound, kernel.work, kernel.calls,
                     [&device, &kernel](std::int64_t n) { return device.seconds(kernel, n); }});
  }
  measure({{std::string("peak bf16: ") + device.library(), device.product_shape(), Bound::bf16,
            [&device] { return device.operations(); }},
           {"read", tools::format_bytes(sizes.stream_bytes), Bound::memory,
            [&device, &sizes] { return device.read_bandwidth(sizes.stream_bytes); }}},
          timed, {options.rounds, sizes.burst_seconds, 1, true}, rows);
}

/// Whole prompts and generation. Between its tokens the host's memory is read: right after a run its bandwidth may be
/// another where others use it too, on one machine from 26 to 64 GB/s within minutes.
void measure_model(Limits& limits, Engine& engine, const Options& options, tools::Log& log, std::vector<Row>& rows) {
  const EngineInfo& info = engine.info();
  Runner runner(log, 1, false);
  runner.load(engine);
  const auto add = [&](const std::string& name, MethodName method, const Test& test, const Runner::Limit& limit) {
    RunOptions run;
    run.method.method = method;
    const Measured measured = runner.measure(engine, run, test, options.quick ? 1 : options.rounds, 1, limit);
    std::vector<double> rates;
    for (const Sample& sample : measured.samples) rates.push_back(1e9 * static_cast<double>(test.tokens()) / sample.ns);
    rows.push_back({name + " " + test.name(), info.model_type,
                    test.n_gen == 0 ? info.compute : bench::name(Bound::memory), "tokens/s", info.threads,
                    spread(rates), share_of(measured, measured.limits), std::nan("")});
  };
  const auto after_run = [&](const Measured& now) { return limit_of(limits, info, now); };
  add("prefill", MethodName::full, {options.n_prompt, 0, 0}, {after_run});
  for (const MethodName method : options.methods) {
    const std::string name = method == MethodName::full ? "decode" : std::string("decode ") + fastkv::name(method);
    const Test test{0, options.n_gen, options.n_depth};
    if (limits.device()) {
      add(name, method, test, {after_run});
      continue;
    }
    RunOptions run;
    run.method.method = method;
    const RunPlan plan = engine.plan(std::max<std::int64_t>(1, options.n_depth), run);
    MemoryReader reader = limits.reader(plan.decode_weight_bytes + plan.cache_bytes_prompt, info.threads);
    add(name, method, test, {[&](const Measured&) { return reader.take_pieces(); }, [&] { reader.read_piece(); }});
  }
}

}  // namespace

int run_roofline(int argc, const char* const* argv) {
  Options options;
  tools::CommandLine command(
      "fastkv-bench roofline", "[-m FILE.gguf] [options]",
      "Measures what this machine can do at most (arithmetic on registers, reading memory), then every\n"
      "kernel, and with -m whole prompts and generation, as shares of it. With --device cuda: what the\n"
      "device can do (a large product by its library, reading memory), the kernels on the model's shapes\n"
      "(without -m: of Llama 3.1 8B).");
  command.group("What is measured");
  command.option("-m,--model", "FILE", options.engine.model, "prefill and decode of this GGUF file too");
  command.option("-p,--n-prompt", "N", options.n_prompt, "prompt tokens of prefill (default 8192)",
                 tools::Limits<std::int64_t>{1, std::int64_t{1} << 30, "must be 1 or more"});
  command.option("-n,--n-gen", "N", options.n_gen, "tokens of decode (default 32)",
                 tools::Limits<std::int64_t>{1, 1 << 30, "must be 1 or more"});
  command.option("-d,--n-depth", "N", options.n_depth, "tokens before those of decode (default 0)",
                 tools::Limits<std::int64_t>{0, 1 << 30, "must be 0 or more"});
  command.add("--method", "LIST", "methods that decode follows (default full); all: but headkv, which needs a table",
              [&options](const std::string& text) {
                tools::MethodList list = tools::parse_methods(text);
                list.drop_headkv(false);
                options.methods = list.methods;
              });
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
  Limits limits(options.engine, options.quick ? quick_sizes() : RooflineSizes());
  std::vector<int> counts(options.threads.begin(), options.threads.end());
  if (limits.device() && counts.size() > 1)
    throw tools::UsageError("--threads: one number with --device " + options.engine.device);
  if (counts.empty()) {
    counts = {1};
    if (limits.device())
      counts = {0};
    else if (limits.team(0).size() > 1)
      counts.push_back(0);
  }
  std::vector<Row> rows;
  for (int threads : counts) {
    std::unique_ptr<Engine> engine;
    const auto open = [&] {
      if (options.engine.model.empty()) return;
      EngineOptions engine_options = options.engine;
      engine_options.threads = threads;
      engine = std::make_unique<Engine>(engine_options);
    };
    if (limits.device()) {
      open();
      measure_device(*limits.device(), engine ? shape_of(engine->info()) : DecoderShape(), options, rows);
    } else {
      measure_cpu(limits, threads, options, rows);
      open();  // its threads would be in the way of the kernels'
    }
    if (engine) measure_model(limits, *engine, options, options.log, rows);
  }
  if (options.output == Format::md) {
    const std::string machine = limits.device() ? limits.device()->device() + ", " + limits.device()->isa()
                                                : cpu_name() + ", " + simd::name(limits.isa());
    write_text(stdout,
               machine + tools::format(", medians of %d rounds\n\n", options.rounds) + table_text(rows, limits));
    return 0;
  }
  Arguments unused;
  const auto printer = make_printer(options.output, stdout, unused);
  printer->begin();
  for (const Row& row : rows) printer->print(json_of(row, limits));
  printer->end();
  return 0;
}

}  // namespace fastkv::bench
