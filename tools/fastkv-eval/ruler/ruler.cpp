// fastkv-eval ruler: RULER's tasks from its files, or generated at any length, answered under every method.
#include <algorithm>

#include "common/format.hpp"
#include "common/lists.hpp"
#include "common/table.hpp"
#include "fastkv-eval/answers.hpp"
#include "fastkv-eval/metrics.hpp"
#include "fastkv-eval/ruler/files.hpp"
#include "fastkv-eval/ruler/tasks.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"

namespace fastkv::tools {

namespace {

struct Flags : EvalFlags {
  std::vector<std::string> data, tasks;
  std::vector<std::int64_t> lengths{4096};
  std::int64_t samples = 10;
  std::string haystack, write;

  void declare(CommandLine& command) {
    declare_model(command);
    command.group("Questions");
    command.add_repeated("--data", "FILE|DIR", "RULER's JSONL, or a folder of it; repeatable (default: generate)",
                         [this](const std::string& text) { data.push_back(text); });
    command.add("--tasks", "LIST", "some of the tasks (default: all; generated: all but qa_1, qa_2)",
                [this](const std::string& text) { tasks = parse_tasks(text); });
    command.add("--lengths", "LIST", "tokens of a generated question with its answer (default 4096)",
                [this](const std::string& text) { lengths = parse_distinct_counts(text, 1); });
    command.option("--samples", "N", samples, "questions of each task and length (default 10)",
                   Limits<std::int64_t>{1, 1000000, "must be 1 or more"});
    command.option("--haystack", "FILE", haystack, "a text to hide needles in (default: made-up sentences)");
    command.option("--write", "DIR", write, "write generated questions in RULER's layout instead of answering them");
    declare_seed(command, "generated questions");
    declare_limit(command, "questions of each file");
    chat.declare(command);
    declare_methods(command);
    declare_output(command);
  }

  static std::vector<std::string> parse_tasks(const std::string& text) {
    if (text == "all") return {};
    std::vector<std::string> known, chosen = split_list(text);
    for (const RulerTask& task : ruler_tasks()) known.emplace_back(task.name);
    for (const std::string& task : chosen) {
      if (!find_ruler_task(task)) throw UsageError(expected_words(known));
      if (std::count(chosen.begin(), chosen.end(), task) > 1) throw UsageError(task + " is named twice");
    }
    return chosen;
  }

  /// The tasks to generate.
  std::vector<const RulerTask*> generated() const {
    std::vector<const RulerTask*> chosen;
    for (const RulerTask& task : ruler_tasks()) {
      if (task.recipe && (tasks.empty() || std::find(tasks.begin(), tasks.end(), task.name) != tasks.end()))
        chosen.push_back(&task);
    }
    return chosen;
  }

  void check(const CommandLine& command) const {
    EvalFlags::check();
    chat.check();
    const auto refuse = [&](const char* name, const char* why) {
      if (command.given(name)) throw UsageError(std::string(name) + " has no effect " + why);
    };
    if (!data.empty()) {
      for (const char* name : {"--lengths", "--samples", "--haystack", "--write", "--seed"})
        refuse(name, "with --data");
    } else {
      refuse("--limit", "without --data");
    }
    if (!write.empty()) refuse("--output", "with --write");
    for (const std::string& task : tasks) {
      if (data.empty() && !find_ruler_task(task)->recipe)
        throw UsageError("--tasks " + task + ": is not generated, only read with --data");
    }
  }
};

/// The user's turn; then, if the answer's beginning is not part of it, the answer as far as it is given.
std::vector<std::int32_t> prompt_of(const Tokenizer& tokenizer, const std::string& chat_template,
                                    const RulerSample& sample) {
  if (chat_template.empty()) return encode_turn(tokenizer, chat_template, {}, sample.input + sample.opening);
  std::vector<std::int32_t> ids = encode_turn(tokenizer, chat_template, {}, sample.input);
  const std::vector<std::int32_t> opening = tokenizer.encode(sample.opening);
  ids.insert(ids.end(), opening.begin(), opening.end());
  return ids;
}

std::vector<RulerSample> generate(Flags& flags, const Tokenizer& tokenizer, const std::string& chat_template) {
  const Haystack haystack = flags.haystack.empty() ? Haystack() : Haystack(flags.haystack);
  const std::vector<const RulerTask*> tasks = flags.generated();
  const auto total = flags.samples * static_cast<std::int64_t>(flags.lengths.size() * tasks.size());
  std::vector<RulerSample> samples;
  flags.progress.start(flags.log, false);
  flags.progress.items("questions", 0, total);
  const auto tokens = [&](const RulerSample& sample) {
    return static_cast<std::int64_t>(prompt_of(tokenizer, chat_template, sample).size());
  };
  for (std::int64_t length : flags.lengths) {
    for (const RulerTask* task : tasks) {
      for (std::int64_t i = 0; i < flags.samples; ++i) {
        samples.push_back(generate_sample(*task, haystack, length, i, static_cast<std::uint64_t>(flags.seed), tokens));
        flags.progress.items("questions", static_cast<std::int64_t>(samples.size()), total);
      }
    }
  }
  flags.progress.wipe();
  return samples;
}

Question question_of(const std::string& id, const RulerSample& sample, std::vector<std::int32_t> prompt) {
  Question question{id,    sample.task,      std::move(prompt), find_ruler_task(sample.task)->max_tokens,
                    false, sample.references};
  question.about = {{"length", sample.length ? OrderedJson(sample.length) : OrderedJson(nullptr)},
                    {"index", sample.index}};
  if (sample.depth) question.about["depth"] = *sample.depth;
  return question;
}

double judge(const Question& question, const std::string& answer) {
  return find_ruler_task(question.task)->any ? string_match_any(answer, question.references)
                                             : string_match(answer, question.references);
}

/// The scores as a table with a column a method, and below it the mean over a length's tasks.
std::string table_of(const OrderedJson& scores, const std::vector<MethodName>& methods) {
  std::vector<std::string> header = {"task", "length", "n"};
  for (MethodName method : methods) header.emplace_back(name(method));
  Table table(header);
  std::vector<OrderedJson> lengths;
  const auto length_text = [](const OrderedJson& length) { return length.is_null() ? "-" : dump(length); };
  for (std::size_t i = 0; i < scores.size(); i += methods.size()) {
    const OrderedJson& first = scores[i];
    if (std::find(lengths.begin(), lengths.end(), first["length"]) == lengths.end()) lengths.push_back(first["length"]);
    std::vector<std::string> cells = {first["task"].get<std::string>(), length_text(first["length"]), dump(first["n"])};
    for (std::size_t m = 0; m < methods.size(); ++m) {
      const OrderedJson& score = scores[i + m]["score"];
      Mean mean{score["mean"].get<double>(), {}};
      if (!score["standard_error"].is_null()) mean.error = score["standard_error"].get<double>();
      cells.push_back(text_of(mean, 1));
    }
    table.row(cells);
  }
  for (const OrderedJson& length : lengths) {
    std::vector<std::string> cells = {"mean of tasks", length_text(length), ""};
    for (MethodName method : methods) {
      std::vector<double> means;
      for (const OrderedJson& score : scores) {
        if (score["length"] == length && score["method"] == name(method))
          means.push_back(score["score"]["mean"].get<double>());
      }
      cells.push_back(format("%.1f", mean_of(means).mean));
    }
    table.row(cells);
  }
  return table.text();
}

}  // namespace

int run_ruler(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval ruler", "-m FILE.gguf [--data FILE|DIR | --lengths LIST] [options]",
                      "RULER's tasks, read from its files or generated at any length: what share of the answers is "
                      "found under each method.");
  Flags flags;
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check(command);
  Evaluation evaluation(command, flags, "fastkv-eval ruler");
  const Tokenizer& tokenizer = evaluation.tokenizer();
  const std::string chat_template = flags.chat.resolve(tokenizer);
  std::vector<Question> questions;
  if (flags.data.empty()) {
    for (std::int64_t length : flags.lengths) {
      for (const RulerTask* task : flags.generated()) {
        if (flags.write.empty()) check_length(evaluation, length, task->max_tokens);
      }
    }
    const std::vector<RulerSample> samples = generate(flags, tokenizer, chat_template);
    if (!flags.write.empty()) {
      write_ruler(flags.write, samples);
      flags.log.info(format("%zu questions are in %s", samples.size(), flags.write.c_str()));
      return 0;
    }
    for (const RulerSample& sample : samples) {
      questions.push_back(question_of(format("%s/%lld/%lld", sample.task.c_str(), static_cast<long long>(sample.length),
                                             static_cast<long long>(sample.index)),
                                      sample, prompt_of(tokenizer, chat_template, sample)));
    }
    evaluation.setting("questions", "generated");
    evaluation.setting("seed", flags.seed);
    evaluation.setting("haystack", flags.haystack.empty() ? OrderedJson(nullptr) : OrderedJson(flags.haystack));
  } else {
    for (const RulerLine& line : read_ruler(flags.data, flags.tasks, flags.limit))
      questions.push_back(question_of(line.where, line.sample, prompt_of(tokenizer, chat_template, line.sample)));
    if (questions.empty()) throw UsageError("--tasks: no file of these tasks");
    evaluation.setting("questions", flags.data);
  }
  evaluation.setting("chat_template", chat_template);
  check_questions(evaluation, questions);
  evaluation.begin("answers", answer_keys(evaluation, questions));
  const std::vector<OrderedJson> examples = answer_all(evaluation, questions, judge);
  OrderedJson scores = score_table(examples, {"task", "length"}).first;
  std::string text = table_of(scores, evaluation.methods());
  if (flags.data.empty())
    text += "Generated questions in this project's wording: the figures compare methods, not published results.\n";
  evaluation.finish(std::move(scores), text);
  return 0;
}

}  // namespace fastkv::tools
