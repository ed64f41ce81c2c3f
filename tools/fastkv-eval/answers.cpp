// The loop over questions and methods.
#include "fastkv-eval/answers.hpp"

#include <algorithm>

#include "common/format.hpp"
#include "common/table.hpp"
#include "fastkv-eval/statistics.hpp"

namespace fastkv::tools {

namespace {

std::string key_of(const Question& question, MethodName method) { return question.id + "/" + name(method); }

RunOptions options_of(const Evaluation& evaluation, const Question& question, MethodName method) {
  RunOptions options = evaluation.options_for(method);
  options.n_predict = question.max_tokens;
  return options;
}

}  // namespace

std::vector<std::string> answer_keys(const Evaluation& evaluation, const std::vector<Question>& questions) {
  std::vector<std::string> keys;
  for (const Question& question : questions) {
    for (MethodName method : evaluation.methods()) keys.push_back(key_of(question, method));
  }
  return keys;
}

void check_questions(const Evaluation& evaluation, const std::vector<Question>& questions) {
  for (const Question& question : questions) {
    for (MethodName method : evaluation.methods())
      evaluation.check_plan(question.prompt.size(), options_of(evaluation, question, method), question.id);
  }
}

void check_length(const Evaluation& evaluation, std::int64_t length, int max_tokens) {
  for (MethodName method : evaluation.methods()) {
    RunOptions options = evaluation.options_for(method);
    options.n_predict = max_tokens;
    evaluation.check_plan(static_cast<std::size_t>(std::max<std::int64_t>(length - max_tokens, 1)), options,
                          format("--lengths %lld", static_cast<long long>(length)));
  }
}

std::vector<OrderedJson> answer_all(Evaluation& evaluation, const std::vector<Question>& questions,
                                    const Judge& judge) {
  std::vector<OrderedJson> examples;
  for (const Question& question : questions) {
    for (MethodName method : evaluation.methods()) {
      examples.push_back(evaluation.example(key_of(question, method), [&] {
        const RunOptions options = options_of(evaluation, question, method);
        std::string answer;
        const RunResult result = evaluation.run(question.prompt, options, [&](std::string_view piece) {
          const std::size_t end = question.stop_at_newline ? piece.find('\n') : std::string_view::npos;
          answer += piece.substr(0, end);
          return end == std::string_view::npos;
        });
        OrderedJson example = {{"task", question.task}, {"method", name(method)}};
        example.update(question.about);
        example["prompt_tokens"] = question.prompt.size();
        example["answer"] = answer;
        if (judge) example["score"] = judge(question, answer);
        example["generated"] = result.tokens.size();
        example["prefill_ms"] = result.stats.prefill_ms;
        example["decode_ms"] = result.stats.decode_ms;
        if (result.stats.coverage) example["coverage"] = *result.stats.coverage;
        return example;
      }));
    }
  }
  return examples;
}

std::pair<OrderedJson, std::string> score_table(const std::vector<OrderedJson>& examples,
                                                const std::vector<std::string>& group) {
  std::vector<std::string> header = group;
  header.insert(header.end(), {"method", "n", "score"});
  Table table(header);
  OrderedJson scores = OrderedJson::array();
  std::vector<std::pair<OrderedJson, std::vector<double>>> rows;  // group and method; scores
  for (const OrderedJson& example : examples) {
    if (!example.contains("score")) continue;
    OrderedJson of;
    for (const std::string& field : group) of[field] = example.at(field);
    of["method"] = example.at("method");
    auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.first == of; });
    if (row == rows.end()) row = rows.emplace(rows.end(), of, std::vector<double>());
    row->second.push_back(100 * example.at("score").get<double>());
  }
  for (auto& [of, values] : rows) {
    const Mean mean = mean_of(values);
    std::vector<std::string> cells;
    for (const auto& [name, value] : of.items())
      cells.push_back(value.is_string() ? value.get<std::string>() : dump(value));
    cells.insert(cells.end(), {std::to_string(values.size()), text_of(mean, 1)});
    table.row(cells);
    of["n"] = values.size();
    of["score"] = json_of(mean);
    scores.push_back(of);
  }
  return {scores, table.text()};
}

}  // namespace fastkv::tools
