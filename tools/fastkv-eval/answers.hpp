// Questions answered under every method, judged, and the table of their scores.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fastkv-eval/evaluation.hpp"

namespace fastkv::tools {

/// One question: a prompt, and what its answer is judged by.
struct Question {
  std::string id;  ///< its own within the evaluation: "vt/4096/3"
  std::string task;
  std::vector<std::int32_t> prompt;
  int max_tokens = 0;            ///< of the answer
  bool stop_at_newline = false;  ///< the answer ends before its first line feed
  std::vector<std::string> references;
  OrderedJson about = OrderedJson::object();  ///< more fields of its examples: length, depth, …
};

/// The score of an answer, 0 to 1.
using Judge = std::function<double(const Question& question, const std::string& answer)>;

/// The keys of the questions' examples, for Evaluation::begin().
std::vector<std::string> answer_keys(const Evaluation& evaluation, const std::vector<Question>& questions);

/// Answers every question under every method of `evaluation`, which has begun. Examples: {"key", "task", "method",
/// …about, "prompt_tokens", "answer", "score", "generated", "prefill_ms", "decode_ms", "coverage"}, with the key
/// "id/method"; in the order of the questions, methods in turn. `judge` empty: examples have no score.
std::vector<OrderedJson> answer_all(Evaluation& evaluation, const std::vector<Question>& questions, const Judge& judge);

/// Refuses, before the work begins, a question whose prompt and answer the context does not hold.
void check_questions(const Evaluation& evaluation, const std::vector<Question>& questions);

/// The same before any question is made: for prompts that together with an answer of `max_tokens` have `length` tokens.
void check_length(const Evaluation& evaluation, std::int64_t length, int max_tokens);

/// Scores in percent over examples that agree in `group` (names of their fields, beside the method): a flat object
/// each, {…group, "method", "n", "score": {"mean", "standard_error"}}, in the order in which groups appear, and the
/// same as text.
std::pair<OrderedJson, std::string> score_table(const std::vector<OrderedJson>& examples,
                                                const std::vector<std::string>& group);

}  // namespace fastkv::tools
