// fastkv-eval ablation: FastKV over a grid of TSP layer, TSP rate and retention: what each costs and what it saves (the
// paper's figure 5).
#include <algorithm>
#include <optional>

#include "common/format.hpp"
#include "common/lists.hpp"
#include "common/table.hpp"
#include "fastkv-eval/evaluation.hpp"
#include "fastkv-eval/row_scores.hpp"
#include "fastkv-eval/rows.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"
#include "fastkv-eval/text_windows.hpp"

namespace fastkv::tools {

namespace {

struct Flags : EvalFlags {
  TextFlags text;
  std::string rows;
  std::int64_t length = 1024, continuation = 64;
  std::vector<std::int64_t> layers;
  std::vector<double> rates{0.1, 0.2, 0.4}, retentions{0.05, 0.1, 0.2};

  Flags() { limit = 8; }
  void declare(CommandLine& command) {
    const Limits<std::int64_t> count{1, std::int64_t{1} << 40, "must be 1 or more"};
    declare_model(command);
    command.group("Text: a text that is cut into rows, or rows as those of fastkv-eval nll");
    text.declare(command);
    command.option("--length", "N", length, "tokens of a prompt cut from the text (default 1024)", count);
    command.option("--continuation", "N", continuation, "tokens after it, which are scored (default 64)", count);
    command.option("--rows", "FILE", rows, "lines {\"prompt\", \"continuation\", ...}");
    command.option("--limit", "N", limit, "rows (default 8)", count);
    chat.declare(command);
    command.group("Grid");
    command.add("--tsp-layers", "LIST", "3,7,11 or 3-27+4 (default: six, evenly spaced)",
                [this](const std::string& list) { layers = parse_counts(list); });
    command.add("--tsp-rates", "LIST", "default 0.1,0.2,0.4",
                [this](const std::string& list) { rates = parse_rates(list); });
    command.add("--retentions", "LIST", "default 0.05,0.1,0.2",
                [this](const std::string& list) { retentions = parse_rates(list); });
    command.group("Other parameters of fastkv");
    method.declare_parameters(command);
    declare_output(command);
  }
  void check(const CommandLine& command) const {
    EvalFlags::check();
    if (rows.empty() == text.file.empty()) throw UsageError("expected -f TEXT or --rows FILE");
    for (const char* of_text : {"--length", "--continuation"}) {
      if (!rows.empty() && command.given(of_text))
        throw UsageError(std::string(of_text) + " has no effect with --rows");
    }
    for (const auto& [one, list] : {std::pair("--tsp-layer", "--tsp-layers"), std::pair("--tsp-rate", "--tsp-rates"),
                                    std::pair("--tsp-tokens", "--tsp-rates"), std::pair("--retention", "--retentions"),
                                    std::pair("--kv-budget", "--retentions")}) {
      if (command.given(one)) throw UsageError(std::string(one) + ": expected " + list + ", which is a list");
    }
    chat.check();
  }
};

/// A point of the grid.
struct Point {
  int layer;
  double rate, retention;
  std::string key() const { return format("%d/%g/%g", layer, rate, retention); }
};

std::vector<Row> rows_of(const Flags& flags, const Tokenizer& tokenizer) {
  if (!flags.rows.empty()) return read_rows(flags.rows, flags.limit, flags.chat, tokenizer);
  std::vector<Row> rows;
  const std::int64_t length = flags.length + flags.continuation;
  for (const Tokens& window : read_windows(flags.text.file, length, length, flags.limit, tokenizer)) {
    Row row;
    row.line = static_cast<std::int64_t>(rows.size()) + 1;
    row.prompt.assign(window.begin(), window.begin() + flags.length);
    row.continuation.assign(window.begin() + flags.length, window.end());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Point> grid_of(const Flags& flags, int n_layer) {
  std::vector<std::int64_t> layers = flags.layers;
  for (int i = 1; flags.layers.empty() && i <= 6; ++i) {
    const std::int64_t layer = std::min(n_layer - 2, (n_layer - 1) * i / 6);
    if (layer >= 0 && (layers.empty() || layer > layers.back())) layers.push_back(layer);
  }
  std::vector<Point> grid;
  for (std::int64_t layer : layers) {
    if (layer >= n_layer)
      throw UsageError(format("--tsp-layers %lld: the model has %d layers (0..%d)", static_cast<long long>(layer),
                              n_layer, n_layer - 1));
    for (double rate : flags.rates) {
      for (double retention : flags.retentions) grid.push_back({static_cast<int>(layer), rate, retention});
    }
  }
  return grid;
}

RunOptions options_of(const Evaluation& evaluation, const Point& point, const Row& row) {
  RunOptions options = evaluation.options_for(MethodName::fastkv);
  options.method.tsp_layer = point.layer;
  options.method.tsp_rate = point.rate;
  options.method.retention = point.retention;
  return row_options(options, row, true);
}

}  // namespace

int run_ablation(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval ablation", "-m FILE.gguf -f TEXT [options]",
                      "FastKV's TSP layer, TSP rate and retention, each combination: divergence from full and "
                      "likelihood of what follows, against the time of the prompt.");
  Flags flags;
  flags.methods = {{MethodName::fastkv}};
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check(command);
  Evaluation evaluation(command, flags, "fastkv-eval ablation");
  const std::vector<Row> rows = rows_of(flags, evaluation.tokenizer());
  const std::vector<Point> grid = grid_of(flags, evaluation.engine().info().n_layer);
  const std::string& source = flags.rows.empty() ? flags.text.file : flags.rows;
  const auto key = [](const Row& row, const std::string& point) {
    return format("%lld/", static_cast<long long>(row.line)) + point;
  };
  std::vector<std::string> keys;
  for (const Row& row : rows) {
    keys.push_back(key(row, "full"));
    for (const Point& point : grid) {
      evaluation.check_plan(row.prompt.size(), options_of(evaluation, point, row), source);
      keys.push_back(key(row, point.key()));
    }
  }
  evaluation.setting("rows", source);
  if (flags.rows.empty())
    evaluation.setting("length", flags.length), evaluation.setting("continuation", flags.continuation);
  evaluation.begin("runs", keys);

  std::vector<OrderedJson> full;                             // [rows]
  std::vector<std::vector<OrderedJson>> found(grid.size());  // [points][rows]
  bool warm = false;
  for (const Row& row : rows) {
    std::optional<RunResult> base;  // run once a row, when a first example needs it
    const auto run_base = [&] {
      if (base) return;
      const RunOptions options = row_options(evaluation.options_for(MethodName::full), row, true);
      if (!warm) evaluation.run(row.prompt, options);  // the first run touches memory that others find
      warm = true;
      base = evaluation.run(row.prompt, options);
    };
    full.push_back(evaluation.example(key(row, "full"), [&] {
      run_base();
      OrderedJson example = {{"method", "full"}};
      example.update(row_scores(row, *base, nullptr));
      return example;
    }));
    for (std::size_t p = 0; p < grid.size(); ++p) {
      found[p].push_back(evaluation.example(key(row, grid[p].key()), [&] {
        run_base();
        const RunResult result = evaluation.run(row.prompt, options_of(evaluation, grid[p], row));
        OrderedJson example = {{"method", "fastkv"},
                               {"tsp_layer", grid[p].layer},
                               {"tsp_rate", grid[p].rate},
                               {"retention", grid[p].retention}};
        example.update(row_scores(row, result, &*base));
        return example;
      }));
    }
  }

  OrderedJson scores = OrderedJson::array();
  Table table({"TSP layer", "TSP rate", "retention", "KL to full", "over full", "prefill", "faster than full"});
  const Mean full_ms = mean_of(column(full, "prefill_ms"));
  scores.push_back({{"method", "full"},
                    {"n", rows.size()},
                    {"nll", json_of(mean_of(column(full, "nll")))},
                    {"prefill_ms", json_of(full_ms)}});
  table.row({"full", "", "", "", "", format("%.0f ms", full_ms.mean), "1.00 x"});
  for (std::size_t p = 0; p < grid.size(); ++p) {
    std::vector<double> excess = column(found[p], "nll");
    for (std::size_t r = 0; r < rows.size(); ++r) excess[r] -= full[r]["nll"].get<double>();
    const Mean kl = mean_of(column(found[p], "kl_to_full")), ms = mean_of(column(found[p], "prefill_ms"));
    scores.push_back({{"method", "fastkv"},
                      {"tsp_layer", grid[p].layer},
                      {"tsp_rate", grid[p].rate},
                      {"retention", grid[p].retention},
                      {"n", rows.size()},
                      {"kl_to_full", json_of(kl)},
                      {"excess_over_full", json_of(mean_of(excess))},
                      {"greedy_equal", json_of(mean_of(column(found[p], "greedy_equal")))},
                      {"prefill_ms", json_of(ms)},
                      {"speedup", full_ms.mean / ms.mean}});
    table.row({std::to_string(grid[p].layer), format("%g", grid[p].rate), format("%g", grid[p].retention), text_of(kl),
               text_of(mean_of(excess)), format("%.0f ms", ms.mean), format("%.2f x", full_ms.mean / ms.mean)});
  }
  evaluation.finish(std::move(scores), table.text());
  return 0;
}

}  // namespace fastkv::tools
