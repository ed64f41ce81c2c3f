// fastkv-eval nll: per row and method the negative log-likelihood of the continuation; means per task.
#include "fastkv-eval/nll.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <span>

#include "common/format.hpp"
#include "common/log.hpp"
#include "common/options.hpp"
#include "common/output.hpp"
#include "common/progress.hpp"
#include "common/signals.hpp"
#include "common/summary.hpp"
#include "common/table.hpp"
#include "core/json.hpp"
#include "fastkv-eval/rows.hpp"
#include "fastkv/engine.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

namespace {

struct Arguments {
  EngineOptions engine;
  RunOptions run;
  MethodFlags method;
  std::vector<MethodName> methods{MethodName::full, MethodName::fastkv};
  bool all = false;  // then headkv, which needs a table, only if it has one
  ChatFlags chat;
  std::string rows, output;
  std::int64_t limit = 0;
  Log log;
  ProgressReport progress;

  void declare(CommandLine& command) {
    command.group("Model and machine");
    declare_model_options(command, engine);
    declare_thread_options(command, engine);
    declare_compute_option(command, engine);
    declare_placement_options(command, engine);
    declare_memory_options(command, run);
    command.group("Rows");
    command.option(
        "--rows", "FILE", rows,
        "lines {\"prompt\": text or ids, \"continuation\": text or ids}; optional: \"opening\" (of the answer, "
        "not scored), \"task\" (name), \"chat\" (false: no template)");
    command.option("--limit", "N", limit, "only the first N rows (default: all)",
                   Limits<std::int64_t>{1, std::int64_t{1} << 40, "must be 1 or more"});
    chat.declare(command);
    command.group("Methods");
    command.add("--method", "LIST", "full,fastkv (default), other methods, all; each reads those flags that it knows",
                [this](const std::string& text) {
                  methods = parse_methods(text);
                  all = text == "all";
                });
    method.declare_parameters(command);
    command.group("Output");
    command.option("-o,--output", "FILE", output, "write settings, rows and means as JSON");
    progress.declare(command);
    log.declare(command);
  }
  void check() const {
    if (engine.model.empty()) throw UsageError("no model: -m FILE");
    if (rows.empty()) throw UsageError("no rows: --rows FILE");
    chat.check();
  }
};

/// One row under one method; means are over the continuation's tokens.
struct Score {
  double nll = 0;
  bool greedy = false;  ///< every token was the best one: a greedy answer goes on with the continuation
  std::optional<double> coverage;
  std::optional<double> kl, same;  ///< against full: KL divergence, share of equal best tokens
};

Score score_of(const Row& row, const RunResult& result) {
  Score score{0, true, result.stats.coverage};
  for (std::size_t t = row.opening.size(); t < result.scores.size(); ++t) {
    score.nll -= result.scores[t].log_prob / static_cast<double>(row.continuation.size());
    score.greedy = score.greedy && result.scores[t].best;
  }
  return score;
}

/// Σ p (ln p − ln q) of the distributions that two rows of logits give; and whether their best tokens agree.
std::pair<double, bool> divergence(std::span<const float> full, std::span<const float> other) {
  const auto best = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
  const auto log_sum = [&](std::span<const float> x) {
    const double top = x[static_cast<std::size_t>(best(x))];
    double sum = 0;
    for (float v : x) sum += std::exp(v - top);
    return top + std::log(sum);
  };
  const double p_sum = log_sum(full), q_sum = log_sum(other);
  double kl = 0;
  for (std::size_t i = 0; i < full.size(); ++i) {
    const double p = full[i] - p_sum;
    kl += std::exp(p) * (p - (other[i] - q_sum));
  }
  return {kl, best(full) == best(other)};
}

/// Sets `score`'s comparison of the scored tokens with those under full.
void compare(Score& score, const RunResult& full, const RunResult& other, std::size_t opening) {
  const std::size_t tokens = other.scores.size(), vocab = other.step_logits.size() / tokens;
  double kl = 0, same = 0;
  for (std::size_t t = opening; t < tokens; ++t) {
    const auto [divergent, equal] = divergence(std::span(full.step_logits).subspan(t * vocab, vocab),
                                               std::span(other.step_logits).subspan(t * vocab, vocab));
    kl += divergent;
    same += equal;
  }
  score.kl = kl / static_cast<double>(tokens - opening);
  score.same = same / static_cast<double>(tokens - opening);
}

/// Mean and its standard error (of one value: none).
struct Mean {
  double mean = 0;
  std::optional<double> error;
};

Mean mean_of(const std::vector<double>& values) {
  Mean m;
  const auto n = static_cast<double>(values.size());
  for (double value : values) m.mean += value / n;
  if (values.size() < 2) return m;
  double squares = 0;
  for (double value : values) squares += (value - m.mean) * (value - m.mean);
  m.error = std::sqrt(squares / (n - 1) / n);
  return m;
}

OrderedJson json_of(const Mean& m) {
  return {{"mean", m.mean}, {"standard_error", m.error ? OrderedJson(*m.error) : OrderedJson(nullptr)}};
}

std::string text_of(const Mean& m) { return format("%.3f", m.mean) + (m.error ? format(" ± %.3f", *m.error) : ""); }

class Evaluation {
 public:
  Evaluation(const CommandLine& command, Arguments& arguments) : arguments_(arguments) {
    method_ = arguments.method.resolve(command, arguments.methods, "--method");
    if (arguments.all && !method_.head_budgets) std::erase(arguments.methods, MethodName::headkv);
    has_full_ =
        std::find(arguments.methods.begin(), arguments.methods.end(), MethodName::full) != arguments.methods.end();
    // rows are compared under the methods that were named, however short they are
    if (!method_.min_prompt) method_.min_prompt = 0;
  }

  void run();

 private:
  RunOptions options_for(MethodName method, const Row& row) const;
  void score(Engine& engine, const Row& row);
  void means(const std::string& task, Table& table);

  Arguments& arguments_;
  MethodOptions method_;
  std::vector<Row> rows_;
  std::vector<std::vector<Score>> scores_;  // [row][method]
  bool has_full_ = false;
  OrderedJson settings_, row_json_ = OrderedJson::array(), means_ = OrderedJson::array();
};

RunOptions Evaluation::options_for(MethodName method, const Row& row) const {
  RunOptions options = arguments_.run;
  options.method = fastkv::options_for(method, method_);
  options.step_logits = has_full_;
  options.continuation = row.opening;
  options.continuation.insert(options.continuation.end(), row.continuation.begin(), row.continuation.end());
  return options;
}

void Evaluation::score(Engine& engine, const Row& row) {
  OrderedJson json;
  json["line"] = row.line;
  if (!row.task.empty()) json["task"] = row.task;
  json["prompt_tokens"] = row.prompt.size();
  json["continuation_tokens"] = row.continuation.size();
  Callbacks callbacks;
  callbacks.stop = &stop_flag();
  std::vector<Score> scores;
  std::optional<RunResult> full;
  if (has_full_) full = engine.run(row.prompt, options_for(MethodName::full, row), callbacks);
  for (MethodName method : arguments_.methods) {
    const RunResult result =
        method == MethodName::full ? *full : engine.run(row.prompt, options_for(method, row), callbacks);
    Score& score = scores.emplace_back(score_of(row, result));
    if (full && method != MethodName::full) compare(score, *full, result, row.opening.size());
    OrderedJson& one = json["methods"][name(method)];
    one = {{"nll", score.nll}, {"greedy_equal", score.greedy}};
    if (score.coverage) one["coverage"] = *score.coverage;
    if (score.kl) one["kl_to_full"] = *score.kl, one["same_best_as_full"] = *score.same;
    if (scores_.empty()) {
      const OrderedJson statistics = OrderedJson::parse(stats_json(engine.info(), result, 0, 0));
      settings_["model"] = statistics["model"];
      settings_["machine"] = statistics["machine"];
      settings_["methods"][name(method)] = statistics["options"];
    }
  }
  row_json_.push_back(std::move(json));
  scores_.push_back(std::move(scores));
}

/// A line of the table and an entry of the file per method, over the rows of `task` (empty: all rows).
void Evaluation::means(const std::string& task, Table& table) {
  const auto full = std::find(arguments_.methods.begin(), arguments_.methods.end(), MethodName::full);
  const std::size_t reference = static_cast<std::size_t>(full - arguments_.methods.begin());
  for (std::size_t m = 0; m < arguments_.methods.size(); ++m) {
    std::vector<double> nll, excess, greedy, kl, same;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      if (!task.empty() && rows_[r].task != task) continue;
      const std::vector<Score>& scores = scores_[r];
      nll.push_back(scores[m].nll);
      greedy.push_back(scores[m].greedy ? 1 : 0);
      if (has_full_) excess.push_back(scores[m].nll - scores[reference].nll);
      if (scores[m].kl) kl.push_back(*scores[m].kl), same.push_back(*scores[m].same);
    }
    OrderedJson json;
    json["task"] = task.empty() ? OrderedJson(nullptr) : OrderedJson(task);
    json["method"] = name(arguments_.methods[m]);
    json["rows"] = nll.size();
    json["nll"] = json_of(mean_of(nll));
    if (!excess.empty()) json["excess_over_full"] = json_of(mean_of(excess));
    json["greedy_equal"] = json_of(mean_of(greedy));
    if (!kl.empty()) json["kl_to_full"] = json_of(mean_of(kl)), json["same_best_as_full"] = json_of(mean_of(same));
    means_.push_back(std::move(json));
    table.row({task.empty() ? "all rows" : task, name(arguments_.methods[m]), std::to_string(nll.size()),
               text_of(mean_of(nll)), excess.empty() ? "-" : text_of(mean_of(excess)),
               format("%.1f %%", 100 * mean_of(greedy).mean), kl.empty() ? "-" : text_of(mean_of(kl)),
               kl.empty() ? "-" : format("%.1f %%", 100 * mean_of(same).mean)});
  }
}

void Evaluation::run() {
  Arguments& a = arguments_;
  a.log.open();
  check_writable(a.output);
  Engine engine(a.engine);
  rows_ = read_rows(a.rows, a.limit, a.chat, engine.tokenizer());
  for (const std::string& line : describe_engine(engine.info())) a.log.info(line);
  for (const Row& row : rows_) {  // what can be refused is refused before the work begins
    for (MethodName method : a.methods) {
      try {
        engine.plan(static_cast<std::int64_t>(row.prompt.size()), options_for(method, row));
      } catch (const Error& error) {
        throw Error(error.code(),
                    format("%s: line %lld: ", a.rows.c_str(), static_cast<long long>(row.line)) + error.what());
      }
    }
  }
  Callbacks callbacks;
  callbacks.stop = &stop_flag();
  callbacks.on_progress = [&](const Progress& progress) { a.progress.update(progress); };
  a.progress.start(a.log, false);
  engine.load(callbacks);
  a.progress.items("rows", 0, static_cast<std::int64_t>(rows_.size()));
  for (const Row& row : rows_) {
    score(engine, row);
    a.progress.items("rows", static_cast<std::int64_t>(scores_.size()), static_cast<std::int64_t>(rows_.size()));
  }
  a.progress.wipe();

  Table table({"task", "method", "rows", "nll", "over full", "greedy equal", "KL to full", "same best"});
  std::vector<std::string> tasks;
  for (const Row& row : rows_) {
    if (!row.task.empty() && std::find(tasks.begin(), tasks.end(), row.task) == tasks.end()) tasks.push_back(row.task);
  }
  for (const std::string& task : tasks) means(task, table);
  means("", table);
  write_stdout(table.text());
  if (a.output.empty()) return;
  OrderedJson json;
  json["tool"] = "fastkv-eval nll";
  json["commit"] = build_commit();
  json["rows_file"] = a.rows;
  json["settings"] = settings_;
  json["means"] = means_;
  json["rows"] = row_json_;
  write_file(a.output, dump(json, 1) + "\n");
}

}  // namespace

int run_nll(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval nll", "-m FILE.gguf --rows ROWS.jsonl [options]",
                      "The mean negative log-likelihood per token of given continuations under each method, and how "
                      "often a greedy answer equals them.");
  Arguments arguments;
  arguments.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  arguments.check();
  Evaluation(command, arguments).run();
  return 0;
}

}  // namespace fastkv::tools
