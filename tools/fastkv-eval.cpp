// fastkv-eval: what compression costs, on the user's own model and text.
#include <string>
#include <string_view>

#include "common/cli.hpp"
#include "common/signals.hpp"
#include "fastkv-eval/subcommands.hpp"

namespace {

using namespace fastkv::tools;

struct Subcommand {
  std::string_view name;
  int (*run)(int argc, const char* const* argv);
  const char* summary;
};

constexpr Subcommand kSubcommands[] = {
    {"longbench", run_longbench, "LongBench's own questions and scores"},
    {"ruler", run_ruler, "RULER's tasks, from its files or generated"},
    {"niah", run_niah, "a needle in a haystack, by length and depth"},
    {"ppl", run_ppl, "perplexity of a text"},
    {"kld", run_kld, "divergence from full on a text"},
    {"nll", run_nll, "how likely given continuations are"},
    {"overlap", run_overlap, "whether layers attend to the same tokens, and to how few"},
    {"hidden", run_hidden, "distance of hidden states from full's, by the layer that drops tokens"},
    {"choose-tsp", run_choose_tsp, "the TSP layer for a model and a text"},
    {"ablation", run_ablation, "FastKV's TSP layer, TSP rate and retention: divergence against time"},
    {"latency", run_latency, "time of prompt and generation, stage by stage"},
};

}  // namespace

int main(int argc, char** argv) {
  install_signal_handlers();
  return run_tool("fastkv-eval", [&] {
    std::string names, list;
    for (const Subcommand& one : kSubcommands) {
      if (argc > 1 && argv[1] == one.name) return one.run(argc - 1, argv + 1);
      names += (names.empty() ? "" : ", ") + std::string(one.name);
      list += "\n  " + std::string(one.name) + std::string(12 - one.name.size(), ' ') + one.summary;
    }
    if (argc > 1 && argv[1][0] != '-') throw UsageError(argv[1] + (": expected " + names));
    CommandLine command("fastkv-eval", "SUBCOMMAND -m FILE.gguf [options]",
                        "Measures what a method changes; `fastkv-eval SUBCOMMAND --help` lists options." + list);
    if (const std::optional<int> status = command.parse(argc, argv)) return *status;
    throw UsageError("expected a subcommand: " + names);
  });
}
