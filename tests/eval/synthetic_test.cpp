// What synthetic questions are made of: random numbers, words, sentences, the search for a length.
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <set>

#include "fastkv-eval/synthetic/fit.hpp"
#include "fastkv-eval/synthetic/haystack.hpp"
#include "fastkv-eval/synthetic/random.hpp"
#include "fastkv-eval/synthetic/text.hpp"
#include "fastkv-eval/synthetic/words.hpp"
#include "fastkv/error.hpp"
#include "support/process.hpp"

namespace fastkv::tools {
namespace {

using Texts = std::vector<std::string>;

TEST(Random, IsTheSameEverywhere) {
  Random random(1, "stream");
  const std::uint64_t first = random.next();
  EXPECT_EQ(Random(1, "stream").next(), first);
  EXPECT_NE(Random(2, "stream").next(), first);
  EXPECT_NE(Random(1, "strean").next(), first);
  EXPECT_EQ(first, 16351332176070531971u);
}

TEST(Random, CoversItsRangeEvenly) {
  Random random(7, "even");
  std::vector<int> counts(10);
  for (int i = 0; i < 10000; ++i) ++counts.at(random.below(10));
  for (int count : counts) EXPECT_NEAR(count, 1000, 120) << "four standard deviations";
  std::vector<int> values = {1, 2, 3, 4, 5};
  std::set<std::vector<int>> orders;
  for (int i = 0; i < 3000; ++i) {
    random.shuffle(values);
    orders.insert(values);
  }
  EXPECT_EQ(orders.size(), 120u) << "every order comes";
  const std::vector<int> sample = random.sample(values, 3);
  EXPECT_EQ(std::set<int>(sample.begin(), sample.end()).size(), 3u);
}

TEST(Random, Texts) {
  Random random(7, "texts");
  for (int i = 0; i < 200; ++i) {
    EXPECT_TRUE(std::regex_match(random.number(7), std::regex("[1-9][0-9]{6}")));
    EXPECT_TRUE(std::regex_match(random.letters(5, 'A'), std::regex("[A-Z]{5}")));
    EXPECT_TRUE(std::regex_match(random.uuid(),
                                 std::regex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")));
  }
}

TEST(Words, StreamsNeverRepeat) {
  WordStream words(Random(1, "words"));
  KeyStream keys(Random(1, "keys"));
  const std::string first = keys.next();
  EXPECT_EQ(std::count(first.begin(), first.end(), '-'), 1);
  std::set<std::string> seen, seen_keys = {first};
  for (int i = 0; i < 20000; ++i) {
    EXPECT_TRUE(seen.insert(words.next()).second);
    EXPECT_TRUE(seen_keys.insert(keys.next()).second);
  }
}

TEST(Text, Sentences) {
  EXPECT_EQ(split_sentences("One  two.\nMr. Three said: \"No!\" (He did?) 3.5 left"),
            (Texts{"One two.", "Mr. Three said: \"No!\"", "(He did?)", "3.5 left"}));
  EXPECT_TRUE(split_sentences(" \n").empty());
  for (const char* end : {"end.", "end!\" ", ".\n\n", "end?”"}) EXPECT_TRUE(ends_sentence(end)) << end;
  for (const char* open : {"end", "", "\"", "a.b", "end,"}) EXPECT_FALSE(ends_sentence(open)) << open;
  EXPECT_EQ(enumerate({"a"}), "a");
  EXPECT_EQ(enumerate({"a", "b", "c"}), "a, b and c");
}

TEST(Haystack, MadeUpSentencesAreSentences) {
  const Texts sentences = Haystack().passage(Random(3, "prose"), 500);
  for (const std::string& sentence : sentences) {
    EXPECT_TRUE(std::regex_match(sentence, std::regex("[A-Z][a-z]*( [a-z]+,?)*\\."))) << sentence;
    EXPECT_FALSE(std::regex_search(sentence, std::regex("\\b[Aa] [aeiou]|\\b[Aa]n [^aeiou]"))) << sentence;
  }
  EXPECT_GT(std::set<std::string>(sentences.begin(), sentences.end()).size(), 480u)
      << "some patterns have few variants";
}

TEST(Haystack, LongerPassagesGoOn) {
  const test::Scratch scratch;
  const Haystack haystack(scratch.write("text", "One. Two. Three. Four. Five."));
  for (const Haystack& source : {haystack, Haystack()}) {
    const Texts shorter = source.passage(Random(4, "x"), 7), longer = source.passage(Random(4, "x"), 40);
    EXPECT_EQ(shorter, Texts(longer.begin(), longer.begin() + 7));
  }
  const Texts passage = haystack.passage(Random(4, "x"), 10);
  EXPECT_EQ(Texts(passage.begin(), passage.begin() + 5), Texts(passage.begin() + 5, passage.end())) << "again";
  std::set<std::string> starts;
  for (const char* stream : {"a", "b", "c", "d", "e", "f", "g", "h"})
    starts.insert(haystack.passage(Random(4, stream), 1)[0]);
  EXPECT_GT(starts.size(), 1u) << "a passage begins anywhere";
}

TEST(Haystack, WrongFiles) {
  const test::Scratch scratch;
  const auto refusal = [](const std::string& path) {
    try {
      Haystack{path};
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal(scratch / "none"), "cannot open " + (scratch / "none") + ": No such file or directory");
  EXPECT_EQ(refusal(scratch / "."), "cannot read " + (scratch / ".") + ": Is a directory");
  EXPECT_EQ(refusal(scratch.write("empty", " \n")), (scratch / "empty") + ": no text");
  EXPECT_EQ(refusal(scratch.write("latin", "caf\xe9 noir.")), (scratch / "latin") + ": not UTF-8");
}

TEST(Fit, TheLargestSizeWithinTheTarget) {
  for (std::int64_t slope : {1, 3, 17}) {
    for (std::int64_t target = 20; target < 3000; target += 37) {
      int calls = 0;
      const auto tokens = [&](std::int64_t size) {
        ++calls;
        EXPECT_LE(size, 2 * target / slope + 20);
        return 10 + slope * size + size % 3;  // not quite even
      };
      const auto size = largest_fit(1, target, tokens);
      EXPECT_LE(calls, 40);
      if (10 + slope + 1 > target) {
        EXPECT_FALSE(size);
        continue;
      }
      ASSERT_TRUE(size) << slope << " " << target;
      EXPECT_LE(tokens(*size), target);
      EXPECT_GT(tokens(*size + 1), target);
    }
  }
}

}  // namespace
}  // namespace fastkv::tools
