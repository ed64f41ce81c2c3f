// fastkv-eval latency: where prefill and decode spend their time, by length of the prompt and method (the paper's
// figure 4). fastkv-bench measures a machine; this draws the figure.
#include <optional>
#include <random>

#include "common/format.hpp"
#include "common/lists.hpp"
#include "common/table.hpp"
#include "fastkv-eval/evaluation.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"

namespace fastkv::tools {

namespace {

struct Flags : EvalFlags {
  std::vector<std::int64_t> lengths{8192, 32768, 131072};
  std::int64_t generated = 128, repetitions = 1;

  void declare(CommandLine& command) {
    declare_model(command);
    command.group("Runs");
    command.add("-p,--lengths", "LIST", "tokens of the prompts, drawn at random (default 8192,32768,131072)",
                [this](const std::string& list) { lengths = parse_counts(list, 1); });
    command.option("-n,--n-predict", "N", generated, "tokens to generate after each (default 128)",
                   Limits<std::int64_t>{2, 1 << 20, "must be 2 or more"});
    command.option("-r,--repetitions", "N", repetitions, "runs of each (default 1)",
                   Limits<std::int64_t>{1, 1 << 20, "must be 1 or more"});
    declare_seed(command, "the prompts");
    declare_methods(command);
    declare_output(command);
  }
};

/// {stage: milliseconds} for those that took any time.
OrderedJson stages_of(const StageTimes& times) {
  OrderedJson stages;
  for (int s = 0; s < kStages; ++s) stages[name(Stage(s))] = times.ms[s];
  return stages;
}

}  // namespace

int run_latency(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval latency", "-m FILE.gguf [options]",
                      "Time of prefill and of generation, stage by stage, by length of the prompt and method.");
  Flags flags;
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  Evaluation evaluation(command, flags, "fastkv-eval latency");
  const auto key = [](std::int64_t length, std::int64_t repetition, MethodName method) {
    return format("%lld/%lld/%s", static_cast<long long>(length), static_cast<long long>(repetition), name(method));
  };
  const auto options_of = [&](MethodName method) {
    RunOptions options = evaluation.options_for(method);
    options.n_predict = static_cast<int>(flags.generated);
    options.sampling.ignore_eos = true;
    return options;
  };
  std::vector<std::string> keys;
  for (std::int64_t length : flags.lengths) {
    for (std::int64_t r = 0; r < flags.repetitions; ++r) {
      for (MethodName method : evaluation.methods()) {
        evaluation.check_plan(static_cast<std::size_t>(length), options_of(method),
                              format("%lld tokens", static_cast<long long>(length)));
        keys.push_back(key(length, r, method));
      }
    }
  }
  evaluation.setting("lengths", flags.lengths);
  evaluation.setting("generated", flags.generated);
  evaluation.setting("seed", flags.seed);
  evaluation.setting("threads", evaluation.engine().info().threads);
  evaluation.setting("threads_batch", evaluation.engine().info().threads_batch);
  evaluation.begin("runs", keys);

  bool warm = false;
  OrderedJson scores = OrderedJson::array();
  Table table({"tokens", "method", "prefill", "tokens/s", "faster than the first", "a generated token",
               "faster than the first", "cache"});
  for (std::int64_t length : flags.lengths) {
    std::mt19937_64 random(static_cast<std::uint64_t>(flags.seed));
    std::vector<std::int32_t> prompt;
    for (std::int64_t i = 0; i < length; ++i)
      prompt.push_back(std::int32_t(random() % std::uint64_t(evaluation.tokenizer().vocab_size())));
    std::vector<std::vector<OrderedJson>> found(evaluation.methods().size());
    for (std::int64_t r = 0; r < flags.repetitions; ++r) {  // methods in turn, so that a slow minute hits all of them
      for (std::size_t m = 0; m < evaluation.methods().size(); ++m) {
        const MethodName method = evaluation.methods()[m];
        found[m].push_back(evaluation.example(key(length, r, method), [&] {
          if (!warm) evaluation.run(prompt, options_of(method));  // the first run touches memory that others find
          warm = true;
          const RunResult result = evaluation.run(prompt, options_of(method));
          const RunStats& stats = result.stats;
          StageTimes prefill = stats.prefill_ends;
          for (const StageTimes& layer : stats.prefill_layers) prefill += layer;
          return OrderedJson{{"length", length},
                             {"method", name(method)},
                             {"repetition", r},
                             {"prefill_ms", stats.prefill_ms},
                             {"decode_ms_per_token", stats.decode_ms / static_cast<double>(stats.n_decoded)},
                             {"prefill_stages_ms", stages_of(prefill)},
                             {"decode_stages_ms", stages_of(stats.decode_stages)},
                             {"cache_bytes", stats.cache_bytes},
                             {"peak_rss_bytes", stats.peak_rss}};
        }));
      }
    }
    const auto mean = [&](std::size_t m, const char* field) { return mean_of(column(found[m], field)); };
    for (std::size_t m = 0; m < found.size(); ++m) {
      const Mean prefill = mean(m, "prefill_ms"), decode = mean(m, "decode_ms_per_token");
      const double prefill_gain = mean(0, "prefill_ms").mean / prefill.mean,
                   decode_gain = mean(0, "decode_ms_per_token").mean / decode.mean;
      OrderedJson score = {{"length", length},
                           {"method", name(evaluation.methods()[m])},
                           {"n", found[m].size()},
                           {"prefill_ms", json_of(prefill)},
                           {"decode_ms_per_token", json_of(decode)},
                           {"prefill_speedup", prefill_gain},
                           {"decode_speedup", decode_gain},
                           {"cache_bytes", found[m][0]["cache_bytes"]}};
      for (const char* part : {"prefill_stages_ms", "decode_stages_ms"}) {
        for (const auto& [stage, first] : found[m][0][part].items()) {
          double sum = 0;
          for (const OrderedJson& example : found[m]) sum += example[part][stage].get<double>();
          score[part][stage] = sum / static_cast<double>(found[m].size());
        }
      }
      table.row({std::to_string(length), name(evaluation.methods()[m]), format("%.2f s", prefill.mean / 1000),
                 format("%.0f", 1000 * static_cast<double>(length) / prefill.mean), format("%.2f x", prefill_gain),
                 format("%.1f ms", decode.mean), format("%.2f x", decode_gain),
                 format_bytes(score["cache_bytes"].get<std::size_t>())});
      scores.push_back(std::move(score));
    }
  }
  evaluation.finish(std::move(scores), table.text());
  return 0;
}

}  // namespace fastkv::tools
