// fastkv-eval nll: per row and method the negative log-likelihood of the continuation; means per task.
#include <algorithm>
#include <optional>
#include <span>

#include "common/format.hpp"
#include "common/table.hpp"
#include "fastkv-eval/divergence.hpp"
#include "fastkv-eval/evaluation.hpp"
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
  RunOptions options = evaluation.options_for(method);
  options.step_logits = evaluation.has(MethodName::full);
  options.continuation = row.opening;
  options.continuation.insert(options.continuation.end(), row.continuation.begin(), row.continuation.end());
  return options;
}

std::string key_of(const Row& row, MethodName method) { return std::to_string(row.line) + "/" + name(method); }

/// The scores of one row under one method, means over the continuation's tokens; against `full` if it is not null.
OrderedJson example_of(const Row& row, MethodName method, const RunResult& result, const RunResult* full) {
  const auto tokens = static_cast<double>(row.continuation.size());
  double nll = 0, kl = 0, same = 0;
  bool greedy = true;  // every token was the best one: a greedy answer goes on with the continuation
  for (std::size_t t = row.opening.size(); t < result.scores.size(); ++t) {
    nll -= result.scores[t].log_prob;
    greedy = greedy && result.scores[t].best;
    if (!full) continue;
    const std::size_t vocab = result.step_logits.size() / result.scores.size();
    const Divergence d = divergence(std::span(full->step_logits).subspan(t * vocab, vocab),
                                    std::span(result.step_logits).subspan(t * vocab, vocab));
    kl += d.kl;
    same += d.same;
  }
  OrderedJson example = {{"line", row.line}};
  if (!row.task.empty()) example["task"] = row.task;
  example.update({{"method", name(method)},
                  {"prompt_tokens", row.prompt.size()},
                  {"continuation_tokens", row.continuation.size()},
                  {"nll", nll / tokens},
                  {"greedy_equal", greedy}});
  if (result.stats.coverage) example["coverage"] = *result.stats.coverage;
  if (full) example["kl_to_full"] = kl / tokens, example["same_best_as_full"] = same / tokens;
  return example;
}

std::vector<OrderedJson> score_rows(Evaluation& evaluation, const std::vector<Row>& rows) {
  std::vector<OrderedJson> examples;
  for (const Row& row : rows) {
    std::optional<RunResult> full;  // run once a row, when a first example needs it
    const auto run = [&](MethodName method) { return evaluation.run(row.prompt, options_of(evaluation, method, row)); };
    for (MethodName method : evaluation.methods()) {
      examples.push_back(evaluation.example(key_of(row, method), [&] {
        if (evaluation.has(MethodName::full) && !full) full = run(MethodName::full);
        if (method == MethodName::full) return example_of(row, method, *full, nullptr);
        return example_of(row, method, run(method), full ? &*full : nullptr);
      }));
    }
  }
  return examples;
}

/// A line of the table and a score per method, over the examples of `task` (empty: all).
void means(const std::vector<OrderedJson>& examples, const std::vector<MethodName>& methods, const std::string& task,
           OrderedJson& scores, Table& table) {
  const auto of_method = [&](MethodName method) {
    std::vector<const OrderedJson*> found;
    for (const OrderedJson& example : examples) {
      if (example["method"] == name(method) && (task.empty() || example.value("task", "") == task))
        found.push_back(&example);
    }
    return found;
  };
  const std::vector<const OrderedJson*> full = of_method(MethodName::full);
  for (MethodName method : methods) {
    const std::vector<const OrderedJson*> found = of_method(method);
    const auto column = [&](const char* field) {
      std::vector<double> values;
      for (const OrderedJson* example : found) {
        if (example->contains(field)) values.push_back((*example)[field].get<double>());
      }
      return values;
    };
    const std::vector<double> nll = column("nll"), kl = column("kl_to_full"), same = column("same_best_as_full");
    std::vector<double> excess, greedy;
    for (std::size_t r = 0; r < found.size(); ++r) {
      greedy.push_back((*found[r])["greedy_equal"].get<bool>());
      if (!full.empty()) excess.push_back(nll[r] - (*full[r])["nll"].get<double>());
    }
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
  const std::vector<OrderedJson> examples = score_rows(evaluation, rows);

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
