// RULER's aggregation tasks: common words of a list, frequent words of a coded text.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "common/format.hpp"
#include "fastkv-eval/ruler/tasks.hpp"
#include "fastkv-eval/synthetic/text.hpp"
#include "fastkv-eval/synthetic/words.hpp"

namespace fastkv::tools {

namespace {

constexpr std::size_t kCommon = 10;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Different words, `kCommon` common ones first; none contains a common one, so that each can be told by its text.
std::vector<std::string> word_list(Random random, std::size_t count) {
  WordStream stream(random);
  std::vector<std::string> words;
  while (words.size() < count) {
    std::string word = stream.next();
    const bool clash =
        std::any_of(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(std::min(words.size(), kCommon)),
                    [&](const std::string& common) {
                      return contains(word, common) || (words.size() < kCommon && contains(common, word));
                    });
    if (!clash) words.push_back(std::move(word));
  }
  return words;
}

/// "1. kite 2. oar".
std::string numbered(const std::vector<std::string>& words) {
  std::vector<std::string> items;
  for (const std::string& word : words) items.push_back(format("%zu. ", items.size() + 1) + word);
  return join(items, " ");
}

/// The list of `words`, the common ones `often` times, the others `seldom` times, and the question.
std::string list_question(const std::vector<std::string>& words, std::size_t often, std::size_t seldom, Random random) {
  std::vector<std::string> all;
  for (std::size_t i = 0; i < words.size(); ++i) all.insert(all.end(), i < kCommon ? often : seldom, words[i]);
  random.shuffle(all);
  return "Some words of the numbered list below come much more often than the others. Find the 10 that come most "
         "often.\n\n" +
         numbered(all) + "\n\nWhich 10 words come most often in the list?";
}

constexpr const char* kListOpening = "The 10 words that come most often in the list are";

}  // namespace

Recipe common_words_recipe(std::string_view, const Haystack&, std::int64_t length, Random random) {
  const bool brief = length < 4096;
  const Random example_words(random.next(), "words"), words(random.next(), "words"), order(random.next(), "order");
  const std::vector<std::string> example = word_list(example_words, brief ? 20 : 40);
  const std::string shown = list_question(example, brief ? 3 : 10, brief ? 1 : 3, order) + "\n" +
                            std::string(kListOpening) + " " + numbered({example.begin(), example.begin() + kCommon}) +
                            "\n\n";
  return {kCommon + 1, [=](std::int64_t size) {
            const std::vector<std::string> list = word_list(words, static_cast<std::size_t>(size));
            RulerSample sample;
            sample.references.assign(list.begin(), list.begin() + kCommon);
            sample.input = shown + list_question(list, brief ? 6 : 30, brief ? 1 : 3, order);
            sample.opening = kListOpening;
            return sample;
          }};
}

Recipe frequent_words_recipe(std::string_view, const Haystack&, std::int64_t length, Random random) {
  constexpr double zeta_of_2 = std::numbers::pi * std::numbers::pi / 6;
  std::set<std::string> used;
  std::vector<std::string> vocabulary = {"..."};  // the most frequent one is to be left out
  while (vocabulary.size() < static_cast<std::size_t>(std::max<std::int64_t>(length / 50, 4))) {
    std::string word = random.letters(6, 'a');
    if (used.insert(word).second) vocabulary.push_back(std::move(word));
  }
  return {60, [=](std::int64_t size) {
            std::vector<std::string> text;
            for (std::size_t rank = 1; rank <= vocabulary.size(); ++rank) {
              const double count = static_cast<double>(size) / static_cast<double>(rank * rank) / zeta_of_2;
              text.insert(text.end(), static_cast<std::size_t>(count), vocabulary[rank - 1]);
            }
            Random(random).shuffle(text);
            RulerSample sample;
            sample.references.assign(vocabulary.begin() + 1, vocabulary.begin() + 4);
            sample.input = "The text below is written in a code. Count its words, the dots \"...\" aside.\n\n" +
                           join(text, " ") + "\n\nWhich three words come most often in the coded text, the dots aside?";
            sample.opening = "The three words that come most often in the coded text are";
            return sample;
          }};
}

}  // namespace fastkv::tools
