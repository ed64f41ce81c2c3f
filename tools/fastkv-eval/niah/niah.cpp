// fastkv-eval niah: a needle in a haystack at every length and depth, answered under every method.
#include <algorithm>

#include "common/format.hpp"
#include "common/lists.hpp"
#include "common/table.hpp"
#include "fastkv-eval/answers.hpp"
#include "fastkv-eval/niah/needle.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"
#include "fastkv-eval/synthetic/fit.hpp"
#include "fastkv-eval/synthetic/haystack.hpp"
#include "fastkv-eval/synthetic/text.hpp"

namespace fastkv::tools {

namespace {

constexpr int kAnswerTokens = 30;

struct Flags : EvalFlags {
  std::vector<std::int64_t> lengths{1024, 2048, 4096}, depths{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100};
  std::int64_t samples = 1;
  std::string haystack;
  Needle needle;

  void declare(CommandLine& command) {
    declare_model(command);
    command.group("Questions");
    command.add("--lengths", "LIST", "tokens of a prompt with its answer (default 1024,2048,4096)",
                [this](const std::string& text) { lengths = parse_distinct_counts(text, 1); });
    command.add("--depths", "LIST", "where the needle is, in percent of the text (default 0-100+10)",
                [this](const std::string& text) {
                  depths = parse_distinct_counts(text);
                  if (*std::max_element(depths.begin(), depths.end()) > 100) throw UsageError("must be 0 to 100");
                });
    command.option("--samples", "N", samples, "texts, and needles of our own, for each length and depth (default 1)",
                   Limits<std::int64_t>{1, 1000, "must be 1 to 1000"});
    command.option("--haystack", "FILE", haystack, "the text, repeated as needed (default: made-up sentences)");
    command.option("--needle", "TEXT", needle.sentence, "the sentence to hide; with the next two (default: our own)");
    command.option("--question", "TEXT", needle.question, "what is asked about it");
    command.option("--answer", "TEXT", needle.answer, "the words that the answer should have");
    declare_seed(command, "texts");
    chat.declare(command);
    declare_methods(command);
    declare_output(command);
  }

  std::int64_t count() const {
    return samples * static_cast<std::int64_t>(lengths.size()) * static_cast<std::int64_t>(depths.size());
  }

  void check() const {
    EvalFlags::check();
    chat.check();
    const int given = !needle.sentence.empty() + !needle.question.empty() + !needle.answer.empty();
    if (given != 0 && given != 3) throw UsageError("--needle, --question and --answer go together");
  }
};

/// Sentences of the haystack, at least `tokens` tokens of them.
Story story_of(const Haystack& haystack, const Random& random, const Tokenizer& tokenizer, std::size_t tokens) {
  for (std::size_t sentences = tokens / 16 + 1;; sentences *= 2) {
    Story story(tokenizer, join(haystack.passage(random, sentences), " "));
    if (story.size() >= tokens) return story;
  }
}

/// The question for every length and depth about one needle in one text.
void add_questions(Flags& flags, const Tokenizer& tokenizer, const std::string& chat_template, const Story& story,
                   const Needle& needle, std::int64_t sample, std::vector<Question>& questions) {
  for (std::int64_t length : flags.lengths) {
    for (std::int64_t depth : flags.depths) {
      const auto prompt = [&](std::int64_t tokens) {
        return encode_turn(tokenizer, chat_template, {},
                           "Read the text below well: a question follows it.\n\n" +
                               story.with(needle.sentence, static_cast<std::size_t>(tokens), static_cast<int>(depth)) +
                               "\n\n" + needle.question);
      };
      const std::optional<std::int64_t> tokens = largest_fit(
          1, length - kAnswerTokens, [&](std::int64_t size) { return static_cast<std::int64_t>(prompt(size).size()); });
      if (!tokens) {
        throw UsageError(format("--lengths %lld: needle and question alone take %zu tokens",
                                static_cast<long long>(length), prompt(1).size() + kAnswerTokens));
      }
      Question question;
      question.id = format("%lld/%lld/%lld", static_cast<long long>(length), static_cast<long long>(depth),
                           static_cast<long long>(sample));
      question.task = "niah";
      question.prompt = prompt(*tokens);
      question.max_tokens = kAnswerTokens;
      question.stop_at_newline = true;
      question.references = {needle.answer};
      question.about = {{"length", length},
                        {"depth", depth},
                        {"sample", sample},
                        {"place", story.place(static_cast<std::size_t>(*tokens), static_cast<int>(depth))}};
      questions.push_back(std::move(question));
      flags.progress.items("questions", static_cast<std::int64_t>(questions.size()), flags.count());
    }
  }
}

/// A table a method: depths down, lengths across, mean scores in percent with a shade, and the mean of each length.
std::string heat_maps(const std::vector<OrderedJson>& examples, const Flags& flags,
                      const std::vector<MethodName>& methods) {
  std::string text;
  for (MethodName method : methods) {
    std::vector<std::string> header = {std::string(name(method)) + ": depth"};
    for (std::int64_t length : flags.lengths) header.push_back(std::to_string(length));
    Table table(header);
    const auto row = [&](const std::string& title, std::optional<std::int64_t> depth) {
      std::vector<std::string> cells = {title};
      for (std::int64_t length : flags.lengths) {
        std::vector<double> scores;
        for (const OrderedJson& example : examples) {
          if (example["method"] == name(method) && example["length"] == length &&
              (!depth || example["depth"] == *depth))
            scores.push_back(100 * example["score"].get<double>());
        }
        const double mean = mean_of(scores).mean;
        static constexpr const char* shades[] = {" ", "░", "▒", "▓", "█"};
        cells.push_back(format("%.0f %s", mean, shades[std::min(static_cast<int>(mean / 20), 4)]));
      }
      table.row(cells);
    };
    for (std::int64_t depth : flags.depths) row(std::to_string(depth) + " %", depth);
    row("mean", {});
    text += table.text() + "\n";
  }
  return text;
}

}  // namespace

int run_niah(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval niah", "-m FILE.gguf [--lengths LIST] [--depths LIST] [--haystack FILE] [options]",
                      "Needle in a haystack: what share of a hidden sentence's words the answer has, by length and "
                      "depth, under each method.");
  Flags flags;
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  Evaluation evaluation(command, flags, "fastkv-eval niah");
  const Tokenizer& tokenizer = evaluation.tokenizer();
  const std::string chat_template = flags.chat.resolve(tokenizer);
  for (std::int64_t length : flags.lengths) check_length(evaluation, length, kAnswerTokens);
  const Haystack haystack = flags.haystack.empty() ? Haystack() : Haystack(flags.haystack);
  const auto longest = static_cast<std::size_t>(*std::max_element(flags.lengths.begin(), flags.lengths.end()));
  std::vector<Question> questions;
  flags.progress.start(flags.log, false);
  flags.progress.items("questions", 0, flags.count());
  for (std::int64_t sample = 0; sample < flags.samples; ++sample) {
    const Random random(static_cast<std::uint64_t>(flags.seed), "niah/" + std::to_string(sample));
    const Needle& needle = flags.needle.sentence.empty()
                               ? own_needles()[static_cast<std::size_t>(sample) % own_needles().size()]
                               : flags.needle;
    // the search for the longest fit tries up to twice the length
    const Story story = story_of(haystack, random, tokenizer, 2 * longest);
    add_questions(flags, tokenizer, chat_template, story, needle, sample, questions);
  }
  const auto or_null = [](const std::string& text) { return text.empty() ? OrderedJson(nullptr) : OrderedJson(text); };
  evaluation.setting("haystack", or_null(flags.haystack));
  evaluation.setting("needle", or_null(flags.needle.sentence));
  evaluation.setting("question", or_null(flags.needle.question));
  evaluation.setting("answer", or_null(flags.needle.answer));
  evaluation.setting("seed", flags.seed);
  evaluation.setting("chat_template", chat_template);
  check_questions(evaluation, questions);
  evaluation.begin("answers", answer_keys(evaluation, questions));
  const std::vector<OrderedJson> examples =
      answer_all(evaluation, questions, [](const Question& question, const std::string& answer) {
        return word_recall(answer, question.references.front());
      });
  OrderedJson scores = score_table(examples, {"task", "length", "depth"}).first;
  const auto [all, table] = score_table(examples, {"task"});
  scores.insert(scores.end(), all.begin(), all.end());
  evaluation.finish(std::move(scores), heat_maps(examples, flags, evaluation.methods()) + table);
  return 0;
}

}  // namespace fastkv::tools
