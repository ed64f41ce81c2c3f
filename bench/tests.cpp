// The main mode: all tests under all combinations of options.
#include <chrono>
#include <thread>

#include "bench/modes.hpp"
#include "bench/printer.hpp"
#include "common/format.hpp"

namespace fastkv::bench {

void for_each_engine(const Arguments& arguments, Runner& runner,
                     const std::function<void(Engine&, const EngineOptions&)>& visit) {
  for (const std::string& model : arguments.models) {
    for (Compute compute : arguments.compute) {
      for (int threads : arguments.threads) {
        for (int threads_batch : arguments.threads_batch) {
          EngineOptions options = arguments.engine;
          options.model = model;
          options.compute = compute;
          options.threads = threads;
          options.threads_batch = threads_batch;
          Engine engine(options);
          runner.load(engine);
          visit(engine, options);
        }
      }
    }
  }
}

std::vector<RunOptions> run_options(const Arguments& arguments) {
  std::vector<RunOptions> all;
  RunOptions options = arguments.run;
  for (CacheType k : arguments.type_k) {
    for (CacheType v : arguments.type_v) {
      options.cache_k = k;
      options.cache_v = v;
      for (MethodName method : arguments.methods.methods) {
        // an option that the method does not read does not multiply its runs
        const auto list = [&](const char* flag, auto values) {
          if (!reads(method, flag)) values = {std::nullopt};
          return values;
        };
        options.method = {};
        options.method.method = method;
        options.method.min_prompt = 0;
        if (reads(method, "--head-budgets")) options.method.head_budgets = arguments.head_budgets;
        for (const auto& layer : list("--tsp-layer", arguments.tsp_layer)) {
          for (const auto& rate : list("--tsp-rate", arguments.tsp_rate)) {
            for (const auto& retention : list("--retention", arguments.retention)) {
              options.method.tsp_layer = layer ? std::optional<int>(static_cast<int>(*layer)) : std::nullopt;
              options.method.tsp_rate = rate;
              options.method.retention = retention;
              all.push_back(options);
            }
          }
        }
      }
    }
  }
  return all;
}

std::vector<Test> tests(const Arguments& arguments) {
  std::vector<Test> all;
  for (std::int64_t depth : arguments.n_depth) {
    for (std::int64_t n : arguments.n_prompt) {
      if (n > 0) all.push_back({n, 0, depth});
    }
    for (std::int64_t n : arguments.n_gen) {
      if (n > 0) all.push_back({0, n, depth});
    }
    for (const auto& [prompt, gen] : arguments.prompt_gen) all.push_back({prompt, gen, depth});
  }
  return all;
}

int run_tests(Arguments& arguments) {
  Runner runner(arguments.log, arguments.seed, arguments.progress);
  const std::vector<RunOptions> combinations = run_options(arguments);
  const std::vector<Test> all = tests(arguments);
  const std::size_t total = arguments.models.size() * arguments.compute.size() * arguments.threads.size() *
                            arguments.threads_batch.size() * combinations.size() * all.size();
  std::size_t done = 0;
  Limits limits(arguments.engine);
  Output output(arguments);
  output.during([&] {
    for_each_engine(arguments, runner, [&](Engine& engine, const EngineOptions& options) {
      for (const RunOptions& run : combinations) {
        for (const Test& test : all) {
          if (arguments.delay > 0) std::this_thread::sleep_for(std::chrono::seconds(arguments.delay));
          runner.set_prefix(tools::format("benchmark %zu/%zu: %s: ", ++done, total, test.name().c_str()));
          const Measured measured =
              runner.measure(engine, run, test, arguments.repetitions, arguments.warmup,
                             {[&](const Measured& now) { return limit_of(limits, engine.info(), now); }});
          output.print(make_record(engine.info(), {options, run}, measured, share_of(measured, measured.limits)));
        }
      }
    });
  });
  return 0;
}

}  // namespace fastkv::bench
