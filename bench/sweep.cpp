// --sweep: speed against depth, in sweep-bench's table.
#include <algorithm>

#include "bench/modes.hpp"
#include "bench/printer.hpp"
#include "bench/statistics.hpp"
#include "common/format.hpp"
#include "fastkv/error.hpp"

namespace fastkv::bench {

namespace {

constexpr std::int64_t kDefaultDepth = 8192;

/// One row: PP prompt tokens after N_KV others, TG generated ones after N_KV.
struct Row {
  std::int64_t n_kv = 0;
  double t_pp = 0, t_tg = 0;  ///< seconds
};

std::string markdown(const Row& row, std::int64_t pp, std::int64_t tg) {
  return tools::format("| %5lld | %6lld | %6lld | %8.3f | %8.2f | %8.3f | %8.2f |\n", static_cast<long long>(pp),
                       static_cast<long long>(tg), static_cast<long long>(row.n_kv), row.t_pp,
                       static_cast<double>(pp) / row.t_pp, row.t_tg, static_cast<double>(tg) / row.t_tg);
}

std::string json_line(const Row& row, const EngineInfo& info, const RunOptions& run, std::int64_t pp, std::int64_t tg,
                      std::int64_t deepest) {
  OrderedJson json;
  json["n_kv_max"] = deepest;
  json["n_batch"] = row.n_kv + pp;
  json["n_ubatch"] = 0;
  json["flash_attn"] = 1;
  json["n_gpu_layers"] = info.device.empty() ? 0 : -1;
  json["n_threads"] = info.threads;
  json["n_threads_batch"] = info.threads_batch;
  json["pp"] = pp;
  json["tg"] = tg;
  json["n_kv"] = row.n_kv;
  json["t_pp"] = row.t_pp;
  json["speed_pp"] = static_cast<double>(pp) / row.t_pp;
  json["t_tg"] = row.t_tg;
  json["speed_tg"] = static_cast<double>(tg) / row.t_tg;
  json["method"] = name(*run.method.method);
  json["compute"] = info.compute;
  json["model_type"] = info.model_type;
  return dump(json) + "\n";
}

}  // namespace

int run_sweep(Arguments& arguments) {
  Runner runner(arguments.log, arguments.seed, arguments.progress);
  const std::int64_t pp = arguments.n_prompt[0], tg = arguments.n_gen[0];
  const bool table = arguments.output == Format::md;
  for_each_engine(arguments, runner, [&](Engine& engine, const EngineOptions&) {
    const EngineInfo& info = engine.info();
    const std::int64_t deepest =
        arguments.context > 0 ? arguments.context : std::min<std::int64_t>(info.n_ctx_train, kDefaultDepth);
    for (const RunOptions& options : run_options(arguments)) {
      if (table) {
        write_text(stdout,
                   tools::format("\n%s, %s, compute %s, %d threads, prompt %d\n\n", info.model_type.c_str(),
                                 name(*options.method.method), info.compute.c_str(), info.threads, info.threads_batch) +
                       "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
                       "|-------|--------|--------|----------|----------|----------|----------|\n");
      }
      for (int i = 0; i < arguments.warmup; ++i) runner.run(engine, options, pp, 1, "warm-up");
      // prefill is whole, so PP tokens after N_KV cost what N_KV + PP cost more than N_KV
      Row row;
      double before = 0;  // seconds of the prefill of n_kv tokens
      for (std::int64_t n_kv = 0; n_kv <= deepest; n_kv += pp) {
        std::vector<double> prefill, generation;
        for (int i = 0; i < arguments.repetitions; ++i) {
          const Run run = runner.run(engine, options, std::max<std::int64_t>(1, n_kv), tg,
                                     tools::format("depth %lld", static_cast<long long>(n_kv)));
          prefill.push_back(run.stats.prefill_ms / 1000);
          generation.push_back(run.stats.decode_ms / 1000);
        }
        const double seconds = n_kv > 0 ? spread(prefill).median : 0;
        if (n_kv > 0) {
          row.t_pp = seconds - before;
          if (row.t_pp <= 0) {
            throw Error(ErrorCode::bad_input,
                        "--sweep: the prompt's tokens take less time than the noise; raise -p or -r");
          }
          write_text(stdout, table ? markdown(row, pp, tg) : json_line(row, info, options, pp, tg, deepest));
        }
        before = seconds;
        row = {n_kv, 0, spread(generation).median};
      }
    }
  });
  return 0;
}

}  // namespace fastkv::bench
