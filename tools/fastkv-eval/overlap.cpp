// fastkv-eval overlap: do layers look at the same tokens, and at how few? (the paper's figure 1)
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "common/format.hpp"
#include "common/table.hpp"
#include "fastkv-eval/evaluation.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"
#include "fastkv-eval/text_windows.hpp"

namespace fastkv::tools {

namespace {

struct Flags : EvalFlags {
  TextFlags text;
  std::int64_t length = 1024, window = 8;
  std::optional<std::int64_t> top_k;
  std::optional<double> top_rate;

  void declare(CommandLine& command) {
    declare_model(command);
    command.group("Text");
    text.declare(command);
    command.option("--length", "N", length,
                   "tokens of a prompt; the text is cut into as many as it gives (default 1024)",
                   Limits<std::int64_t>{2, std::int64_t{1} << 40, "must be 2 or more"});
    declare_limit(command, "prompts");
    command.group("Scores");
    command.option("--window", "N", window, "last tokens of a prompt, whose attention is the score (default 8)",
                   Limits<std::int64_t>{1, 1 << 20, "must be 1 or more"});
    command.option("--top-k", "N", top_k, "tokens of a layer that are compared (default 512)",
                   Limits<std::int64_t>{1, std::int64_t{1} << 40, "must be 1 or more"});
    command.option("--top-rate", "R", top_rate, "the same as a share of the prompt",
                   Limits<double>{1e-9, 1, "must be in (0, 1]"});
    declare_output(command);
  }
  void check() const {
    EvalFlags::check();
    text.check();
    if (top_k && top_rate) throw UsageError("--top-k and --top-rate exclude each other");
    if (window >= length)
      throw UsageError(format("--window %lld leaves none of the %lld tokens of --length to score",
                              static_cast<long long>(window), static_cast<long long>(length)));
    if (k() > length - window) {
      throw UsageError(format("--top-%s: %lld tokens are more than the %lld that are scored", top_rate ? "rate" : "k",
                              static_cast<long long>(k()), static_cast<long long>(length - window)));
    }
    if (k() < 1) throw UsageError("--top-rate leaves no token of the prompt");
  }
  std::int64_t k() const {
    return top_rate ? static_cast<std::int64_t>(static_cast<double>(length) * *top_rate) : top_k.value_or(512);
  }
};

/// The k largest of `scores`, as a set of flags; of equal ones the lower index.
std::vector<char> top_set(std::span<const float> scores, std::int64_t k) {
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), [&](std::int32_t a, std::int32_t b) {
    const float x = scores[std::size_t(a)], y = scores[std::size_t(b)];
    return x != y ? x > y : a < b;
  });
  std::vector<char> in(scores.size());
  for (std::int64_t i = 0; i < k; ++i) in[std::size_t(order[std::size_t(i)])] = 1;
  return in;
}

double rounded(double x) { return std::round(x * 1e6) / 1e6; }  // short in the file

/// {"mass": [N], "overlap": [N][N]}: share of the window's attention on a layer's top tokens; |A ∩ B| / k.
OrderedJson example_of(const std::vector<float>& scores, std::size_t layers, std::int64_t k, double whole) {
  const std::size_t n = scores.size() / layers;
  std::vector<std::vector<char>> sets;
  std::vector<double> mass;
  for (std::size_t l = 0; l < layers; ++l) {
    const std::span<const float> row = std::span(scores).subspan(l * n, n);
    sets.push_back(top_set(row, k));
    double sum = 0;
    for (std::size_t j = 0; j < n; ++j) sum += sets[l][j] ? row[j] : 0.0F;
    mass.push_back(rounded(sum / whole));
  }
  std::vector<std::vector<double>> overlap(layers, std::vector<double>(layers, 1));
  for (std::size_t a = 0; a < layers; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      const int common = std::inner_product(sets[a].begin(), sets[a].end(), sets[b].begin(), 0);
      overlap[a][b] = overlap[b][a] = rounded(common / static_cast<double>(k));
    }
  }
  return {{"mass", mass}, {"overlap", overlap}};
}

}  // namespace

int run_overlap(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval overlap", "-m FILE.gguf -f TEXT [options]",
                      "For every layer the tokens that the end of a prompt attends to most: how much of its attention "
                      "they hold, and how many of them two layers share.");
  Flags flags;
  flags.methods = {{MethodName::full}};
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  Evaluation evaluation(command, flags, "fastkv-eval overlap");
  const std::vector<Tokens> prompts =
      read_windows(flags.text.file, flags.length, flags.length, flags.limit, evaluation.tokenizer());
  RunOptions options = evaluation.options_for(MethodName::full);
  options.n_predict = 0;
  options.score_rows = static_cast<int>(flags.window);
  evaluation.check_plan(prompts[0].size(), options, flags.text.file);
  std::vector<std::string> keys;
  for (std::size_t p = 0; p < prompts.size(); ++p) keys.push_back(std::to_string(p));
  evaluation.setting("text", flags.text.file);
  evaluation.setting("length", flags.length);
  evaluation.setting("window", flags.window);
  evaluation.setting("k", flags.k());
  evaluation.begin("prompts", keys);

  const EngineInfo& info = evaluation.engine().info();
  const auto layers = static_cast<std::size_t>(info.n_layer);
  const double whole = static_cast<double>(flags.window) * info.n_head;
  std::vector<std::vector<double>> mass(layers);
  std::vector<std::vector<double>> overlap(layers, std::vector<double>(layers));  // means
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const OrderedJson& example = evaluation.example(keys[p], [&] {
      OrderedJson one = {{"prompt", p}};
      one.update(example_of(evaluation.run(prompts[p], options).layer_scores, layers, flags.k(), whole));
      return one;
    });
    for (std::size_t a = 0; a < layers; ++a) {
      mass[a].push_back(example["mass"][a]);
      for (std::size_t b = 0; b < layers; ++b)
        overlap[a][b] += example["overlap"][a][b].get<double>() / static_cast<double>(prompts.size());
    }
  }
  OrderedJson scores = OrderedJson::array();
  Table table({"layer", "attention on its top tokens", "shared with the next layer", "with all later ones, mean"});
  for (std::size_t a = 0; a < layers; ++a) {
    scores.push_back(
        {{"layer", a}, {"n", prompts.size()}, {"mass", json_of(mean_of(mass[a]))}, {"overlap", overlap[a]}});
    const double later = std::accumulate(overlap[a].begin() + std::ptrdiff_t(a) + 1, overlap[a].end(), 0.0);
    const bool last = a + 1 == layers;
    table.row({std::to_string(a), text_of(mean_of(mass[a])), last ? "-" : format("%.3f", overlap[a][a + 1]),
               last ? "-" : format("%.3f", later / static_cast<double>(layers - 1 - a))});
  }
  evaluation.finish(std::move(scores), table.text());
  return 0;
}

}  // namespace fastkv::tools
