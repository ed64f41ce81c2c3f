// fastkv-eval longbench: LongBench's questions under every method, scored as its own scorer does.
#include <algorithm>
#include <filesystem>

#include "common/format.hpp"
#include "fastkv-eval/answers.hpp"
#include "fastkv-eval/jsonl.hpp"
#include "fastkv-eval/longbench/files.hpp"
#include "fastkv-eval/longbench/predictions.hpp"
#include "fastkv-eval/longbench/prompts.hpp"
#include "fastkv-eval/subcommands.hpp"

namespace fastkv::tools {

namespace {

struct Flags : EvalFlags {
  std::string data, predictions;
  DataSets sets = parse_data_sets("");
  std::int64_t max_input = 0;

  void declare(CommandLine& command) {
    declare_model(command);
    command.group("Questions");
    command.option(
        "--data", "DIR", data,
        "LongBench as it is published: data/*.jsonl, config/dataset2prompt.json, config/dataset2maxlen.json");
    command.add("--datasets", "LIST",
                "names of sets (NAME_e: of LongBench-E), all (21 sets), e (13 of LongBench-E); default: those of the "
                "16 in English and code that are there",
                [this](const std::string& text) {
                  if (text.empty()) throw UsageError("expected names of data sets");
                  sets = parse_data_sets(text);
                });
    command.option("--max-input", "N", max_input,
                   "cut longer prompts to N tokens, in the middle (default, and at most: what the context leaves "
                   "beside the answer)",
                   Limits<std::int64_t>{2, std::int64_t{1} << 40, "must be 2 or more"});
    declare_limit(command, "questions of each set");
    chat.declare(command);
    declare_methods(command);
    declare_output(command);
    command.option("--predictions", "DIR", predictions,
                   "write the answers as LongBench's scorer reads them: DIR/pred/MODEL-METHOD/SET.jsonl");
  }
  void check() const {
    EvalFlags::check();
    if (data.empty()) throw UsageError("no data: --data DIR");
    chat.check();
  }
};

/// The sets that are there. Throws Error io if there is none or a named one is missing.
std::vector<DataSet> present(const DataSets& wanted, const LongBenchFiles& files, Log& log) {
  std::vector<DataSet> found;
  std::string missing;
  for (const DataSet& set : wanted.sets) {
    if (files.has(set)) {
      found.push_back(set);
    } else if (wanted.named) {
      throw Error(ErrorCode::io, "no data set " + set.title() + ": there is no file " + files.data_file(set));
    } else {
      missing += (missing.empty() ? "" : ", ") + set.title();
    }
  }
  if (found.empty())
    throw Error(ErrorCode::io, "none of the data sets is there, the first would be " + files.data_file(wanted.sets[0]));
  if (!missing.empty()) log.info("note: not among the files: " + missing);
  return found;
}

/// The questions of one set, in the order of its records.
struct Task {
  DataSet set;
  std::vector<Record> records;
  std::vector<Question> questions;
};

class Run {
 public:
  Run(const CommandLine& command, Flags& flags)
      : flags_(flags), files_(flags.data), evaluation_(command, flags, "fastkv-eval longbench") {}

  void run() {
    prepare();
    std::vector<std::string> keys;
    for (const Task& task : tasks_) {
      check_questions(evaluation_, task.questions);
      const std::vector<std::string> more = answer_keys(evaluation_, task.questions);
      keys.insert(keys.end(), more.begin(), more.end());
      for (MethodName method : evaluation_.methods())
        if (!flags_.predictions.empty()) make_folders(predictions_of(method, task.set));
    }
    evaluation_.begin("answers", keys);
    std::vector<OrderedJson> whole, by_length;
    for (const Task& task : tasks_) {
      std::vector<OrderedJson> examples = answer(task);
      std::vector<OrderedJson>& scored = task.set.e ? by_length : whole;
      if (task.set.e) {
        std::stable_sort(examples.begin(), examples.end(), [](const OrderedJson& a, const OrderedJson& b) {
          return a["class"].get<std::string>() < b["class"].get<std::string>();
        });
      }
      scored.insert(scored.end(), examples.begin(), examples.end());
    }
    auto [scores, table] = score_table(whole, {"task"});
    if (!by_length.empty()) {
      const auto [more, text] = score_table(by_length, {"task", "class"});
      scores.insert(scores.end(), more.begin(), more.end());
      table = whole.empty() ? text : table + "\n" + text;
    }
    evaluation_.finish(scores, table);
  }

 private:
  void prepare();
  Task read(const DataSet& set);
  std::vector<OrderedJson> answer(const Task& task);
  std::string predictions_of(MethodName method, const DataSet& set) const {
    const std::string model = std::filesystem::path(flags_.engine.model).stem().string();
    return predictions_file(flags_.predictions, model + "-" + name(method), set);
  }

  Flags& flags_;
  LongBenchFiles files_;
  Evaluation evaluation_;
  std::string template_;  // of chat; empty: none
  std::int64_t context_ = 0;
  std::vector<Task> tasks_;
};

void Run::prepare() {
  const EngineInfo& info = evaluation_.engine().info();
  context_ = flags_.run.context > 0 ? flags_.run.context : info.n_ctx_train;
  const std::vector<DataSet> sets = present(flags_.sets, files_, flags_.log);
  if (std::any_of(sets.begin(), sets.end(), [](const DataSet& set) { return set.chat; }))
    template_ = flags_.chat.resolve(evaluation_.tokenizer());
  for (const DataSet& set : sets) tasks_.push_back(read(set));
  evaluation_.setting("data", flags_.data);
  evaluation_.setting("context", context_);
  evaluation_.setting("max_input", flags_.max_input > 0 ? OrderedJson(flags_.max_input) : OrderedJson(nullptr));
  evaluation_.setting("chat_template", template_);
}

Task Run::read(const DataSet& set) {
  const int max_tokens = files_.max_tokens(set);
  const std::int64_t limit = context_ - max_tokens;
  if (limit < 2) {
    throw Error(ErrorCode::context_exceeded,
                format("%s: its answers of up to %d tokens leave no prompt in a context of %lld: raise -c",
                       set.title().c_str(), max_tokens, static_cast<long long>(context_)));
  }
  const std::int64_t text_limit = flags_.max_input > 0 ? std::min(flags_.max_input, limit) : limit;
  Task task{set, files_.read(set, flags_.limit), {}};
  std::size_t cut = 0;
  for (Record& record : task.records) {
    Question question;
    question.id = set.title() + "/" + std::to_string(record.line);
    question.task = set.title();
    Prompt prompt = located(files_.data_file(set) + ": line " + std::to_string(record.line), [&] {
      return prompt_of(evaluation_.tokenizer(), set.chat ? template_ : "", record.prompt, text_limit, limit);
    });
    record.prompt.clear();
    question.prompt = std::move(prompt.ids);
    question.max_tokens = max_tokens;
    question.references = record.answers;
    question.about = {{"line", record.line}, {"length", record.length}, {"cut", prompt.cut}};
    if (!record.id.empty()) question.about["_id"] = record.id;
    if (set.e) question.about["class"] = length_class(record.length);
    cut += prompt.cut;
    task.questions.push_back(std::move(question));
  }
  flags_.log.info(format("%s: %zu questions in at most %lld tokens, %zu of them cut; answers of at most %d%s",
                         set.title().c_str(), task.questions.size(), static_cast<long long>(text_limit), cut,
                         max_tokens,
                         set.metric ? "" : "; not scored: --predictions writes them for LongBench's scorer"));
  return task;
}

std::vector<OrderedJson> Run::answer(const Task& task) {
  Judge judge;
  if (task.set.metric) {
    judge = [&](const Question& question, const std::string& answer) {
      const auto at = static_cast<std::size_t>(&question - task.questions.data());
      return score(task.set, answer, task.records[at].answers, task.records[at].classes);
    };
  }
  std::vector<OrderedJson> examples = answer_all(evaluation_, task.questions, judge);
  if (flags_.predictions.empty()) return examples;
  evaluation_.save();  // whatever becomes of the predictions
  for (MethodName method : evaluation_.methods()) {
    std::vector<std::string> answers;
    for (const OrderedJson& example : examples)
      if (example["method"] == name(method)) answers.push_back(example["answer"]);
    write_predictions(predictions_of(method, task.set), task.records, answers);
  }
  return examples;
}

}  // namespace

int run_longbench(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval longbench", "-m FILE.gguf --data DIR [options]",
                      "LongBench's questions from its published files, answered under each method and scored as "
                      "LongBench does.");
  Flags flags;
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  Run(command, flags).run();
  return 0;
}

}  // namespace fastkv::tools
