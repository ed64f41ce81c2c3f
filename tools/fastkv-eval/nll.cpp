// fastkv-eval nll: per row and method the negative log-likelihood of the continuation; means per task.
#include <algorithm>
#include <optional>

#include "common/format.hpp"
#include "common/table.hpp"
#include "fastkv-eval/evaluation.hpp"
#include "fastkv-eval/row_scores.hpp"
#include "fastkv-eval/rows.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"

namespace fastkv::tools {

namespace {

struct Flags : EvalFlags {
  std::string rows;

  void declare(CommandLine& command) {
    declare_model(command);
    command.group("Rows");
    command.option(
        "--rows", "FILE", rows,
        "lines {\"prompt\": text or ids, \"continuation\": text or ids}; optional: \"opening\" (of the answer, "
        "not scored), \"task\" (name), \"chat\" (false: no template)");
    declare_limit(command, "rows");
    chat.declare(command);
    declare_methods(command);
    declare_output(command);
  }
  void check() const {
    EvalFlags::check();
    if (rows.empty()) throw UsageError("no rows: --rows FILE");
    chat.check();
  }
};

RunOptions options_of(const Evaluation& evaluation, MethodName method, const Row& row) {
  return row_options(evaluation.options_for(method), row, evaluation.has(MethodName::full));
}

std::string key_of(const Row& row, MethodName method) { return std::to_string(row.line) + "/" + name(method); }

std::vector<OrderedJson> score(Evaluation& evaluation, const std::vector<Row>& rows) {
  std::vector<OrderedJson> examples;
  for (const Row& row : rows) {
    std::optional<RunResult> full;  // run once a row, when a first example needs it
    const auto run = [&](MethodName method) { return evaluation.run(row.prompt, options_of(evaluation, method, row)); };
    for (MethodName method : evaluation.methods()) {
      examples.push_back(evaluation.example(key_of(row, method), [&] {
        if (evaluation.has(MethodName::full) && !full) full = run(MethodName::full);
        OrderedJson example = {{"method", name(method)}};
        example.update(method == MethodName::full ? row_scores(row, *full, nullptr)
                                                  : row_scores(row, run(method), full ? &*full : nullptr));
        return example;
      }));
    }
  }
  return examples;
}

/// A line of the table and a score per method, over the examples of `task` (empty: all).
void means(const std::vector<OrderedJson>& examples, const std::vector<MethodName>& methods, const std::string& task,
           OrderedJson& scores, Table& table) {
  const auto of_method = [&](MethodName method) {
    std::vector<OrderedJson> found;
    for (const OrderedJson& example : examples) {
      if (example["method"] == name(method) && (task.empty() || example.value("task", "") == task))
        found.push_back(example);
    }
    return found;
  };
  const std::vector<double> full = column(of_method(MethodName::full), "nll");
  for (MethodName method : methods) {
    const std::vector<OrderedJson> found = of_method(method);
    const std::vector<double> nll = column(found, "nll"), greedy = column(found, "greedy_equal"),
                              kl = column(found, "kl_to_full"), same = column(found, "same_best_as_full");
    std::vector<double> excess;
    for (std::size_t r = 0; r < full.size(); ++r) excess.push_back(nll[r] - full[r]);
    OrderedJson score;
    score["task"] = task.empty() ? "all rows" : task;
    score["method"] = name(method);
    score["n"] = nll.size();
    score["nll"] = json_of(mean_of(nll));
    if (!excess.empty()) score["excess_over_full"] = json_of(mean_of(excess));
    score["greedy_equal"] = json_of(mean_of(greedy));
    if (!kl.empty()) score["kl_to_full"] = json_of(mean_of(kl)), score["same_best_as_full"] = json_of(mean_of(same));
    table.row({score["task"].get<std::string>(), name(method), std::to_string(nll.size()), text_of(mean_of(nll)),
               excess.empty() ? "-" : text_of(mean_of(excess)), format("%.1f %%", 100 * mean_of(greedy).mean),
               kl.empty() ? "-" : text_of(mean_of(kl)),
               kl.empty() ? "-" : format("%.1f %%", 100 * mean_of(same).mean)});
    scores.push_back(std::move(score));
  }
}

}  // namespace

int run_nll(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval nll", "-m FILE.gguf --rows ROWS.jsonl [options]",
                      "The mean negative log-likelihood per token of given continuations under each method, and how "
                      "often a greedy answer equals them.");
  Flags flags;
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  Evaluation evaluation(command, flags, "fastkv-eval nll");
  const std::vector<Row> rows = read_rows(flags.rows, flags.limit, flags.chat, evaluation.tokenizer());
  std::vector<std::string> keys;
  for (const Row& row : rows) {
    for (MethodName method : evaluation.methods()) {
      const std::string where = flags.rows + ": line " + std::to_string(row.line);
      evaluation.check_plan(row.prompt.size(), options_of(evaluation, method, row), where);
      keys.push_back(key_of(row, method));
    }
  }
  evaluation.setting("rows", flags.rows);
  evaluation.setting("against_full", evaluation.has(MethodName::full));
  evaluation.begin("rows", keys);
  const std::vector<OrderedJson> examples = score(evaluation, rows);

  std::vector<std::string> tasks;
  for (const Row& row : rows) {
    if (!row.task.empty() && std::find(tasks.begin(), tasks.end(), row.task) == tasks.end()) tasks.push_back(row.task);
  }
  Table table({"task", "method", "rows", "nll", "over full", "greedy equal", "KL to full", "same best"});
  OrderedJson scores = OrderedJson::array();
  for (const std::string& task : tasks) means(examples, evaluation.methods(), task, scores, table);
  means(examples, evaluation.methods(), "", scores, table);
  evaluation.finish(std::move(scores), table.text());
  return 0;
}

}  // namespace fastkv::tools
