// RULER's tasks: how long an answer may be, what counts as right, which ones are generated here.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fastkv-eval/synthetic/haystack.hpp"
#include "fastkv-eval/synthetic/random.hpp"

namespace fastkv::tools {

/// A question as RULER's files have it.
struct RulerSample {
  std::string task;
  std::int64_t index = 0;
  std::int64_t length = 0;              ///< tokens that were aimed at, answer included; 0: not known
  std::string input;                    ///< the user's turn
  std::string opening;                  ///< what the answer begins with, if that is not part of `input`
  std::vector<std::string> references;  ///< the answers
  std::optional<int> depth;             ///< of the only needle that is asked for, in percent of the text
};

/// One question at every size: a larger one has more text around the same things to find.
struct Recipe {
  std::int64_t smallest = 1;
  std::function<RulerSample(std::int64_t size)> make;  ///< sets input, opening, references, depth
};

struct RulerTask {
  std::string_view name;
  int max_tokens;  ///< of the answer
  bool any;        ///< one of the references is enough; otherwise the score is the share of those found
  /// A question for `length` tokens; null: the task is read from files only.
  Recipe (*recipe)(std::string_view task, const Haystack& haystack, std::int64_t length, Random random);
};

/// All 13, in RULER's order.
const std::vector<RulerTask>& ruler_tasks();
/// Null: there is no such task.
const RulerTask* find_ruler_task(std::string_view name);

/// The niah_* tasks: needles {key, value} in noise, in the haystack's text or among other needles.
Recipe needle_recipe(std::string_view task, const Haystack& haystack, std::int64_t length, Random random);
/// vt: a chain of assignments to follow.
Recipe tracking_recipe(std::string_view task, const Haystack& haystack, std::int64_t length, Random random);
/// cwe: the words of a list that come most often. Lists for less than 4,096 tokens repeat their words less.
Recipe common_words_recipe(std::string_view task, const Haystack& haystack, std::int64_t length, Random random);
/// fwe: the most frequent words of a coded text, whose frequencies fall as 1/rank².
Recipe frequent_words_recipe(std::string_view task, const Haystack& haystack, std::int64_t length, Random random);

/// `count` of 40 evenly spaced depths in percent, 0 and 100 included, ascending.
std::vector<int> sample_depths(Random& random, std::size_t count);
/// `units` with `needles` put in at the depths, in order; a unit stays whole.
std::vector<std::string> hide(const std::vector<std::string>& units, const std::vector<std::string>& needles,
                              const std::vector<int>& depths);
/// `count` lines that say the same.
std::vector<std::string> noise(std::int64_t count);

/// The sample of `task` that fits `length` tokens, counted by `tokens(sample)`, with room for the answer. The same seed
/// and index give the same question. Throws UsageError where not even the shortest one fits.
RulerSample generate_sample(const RulerTask& task, const Haystack& haystack, std::int64_t length, std::int64_t index,
                            std::uint64_t seed, const std::function<std::int64_t(const RulerSample&)>& tokens);

}  // namespace fastkv::tools
