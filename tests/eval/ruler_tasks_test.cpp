// The structure of generated RULER questions: what is hidden where, and what the answer is.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "common/chat.hpp"
#include "fastkv-eval/ruler/tasks.hpp"
#include "support/fixtures.hpp"

namespace fastkv::tools {
namespace {

using Texts = std::vector<std::string>;

RulerSample make(std::string_view task, std::int64_t size, std::uint64_t seed = 1, std::int64_t length = 4096) {
  static const Haystack haystack;
  return find_ruler_task(task)->recipe(task, haystack, length, Random(seed, "test")).make(size);
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

/// All matches of `pattern`'s group `group` in `text`.
Texts matches(const std::string& text, const std::string& pattern, std::size_t group) {
  Texts found;
  const std::regex regex(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), regex); it != std::sregex_iterator(); ++it)
    found.push_back((*it)[group]);
  return found;
}

std::set<std::string> set_of(const Texts& texts) { return {texts.begin(), texts.end()}; }

const std::string kNote = "A code (number|string) of ([a-z0-9-]+) is ([a-z0-9-]+)\\.";
const std::string kUuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

struct Expected {
  const char* task;
  std::size_t keys, values, asked;
  bool uuid_keys, uuid_values, among_notes;
};

class NeedleTasks : public ::testing::TestWithParam<Expected> {};

TEST_P(NeedleTasks, HideWhatIsAskedFor) {
  const Expected& e = GetParam();
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    constexpr std::size_t kSize = 60;
    const RulerSample sample = make(e.task, kSize, seed);
    const Texts keys = matches(sample.input, kNote, 2), values = matches(sample.input, kNote, 3);
    const std::size_t hidden = e.keys * e.values + (e.among_notes ? kSize : 0);
    ASSERT_EQ(keys.size(), hidden);
    EXPECT_EQ(set_of(values).size(), hidden) << "no value twice";
    EXPECT_EQ(set_of(keys).size(), e.values > 1 ? e.keys : hidden) << "a key's notes give all its values";
    for (const std::string& key : keys)
      EXPECT_TRUE(std::regex_match(key, std::regex(e.uuid_keys ? kUuid : "[a-z]+-[a-z]+"))) << key;
    for (const std::string& value : values)
      EXPECT_TRUE(std::regex_match(value, std::regex(e.uuid_values ? kUuid : "[1-9][0-9]{6}"))) << value;

    ASSERT_EQ(sample.references.size(), e.asked * e.values);
    for (const std::string& reference : sample.references) {
      EXPECT_EQ(count(sample.input, reference), 1u) << "in its note only";
      const std::string& key =
          keys[static_cast<std::size_t>(std::find(values.begin(), values.end(), reference) - values.begin())];
      EXPECT_EQ(count(sample.opening, key), 1u);
      EXPECT_EQ(count(sample.input.substr(sample.input.rfind("\n\n")), key), 1u) << "the question names it";
    }
    EXPECT_EQ(sample.depth.has_value(), sample.references.size() == 1);
    if (sample.depth) {  // the share of the text before the needle
      const std::size_t begin = sample.input.find("\n\n") + 2, end = sample.input.rfind("\n\n");
      const double share = 100.0 * static_cast<double>(sample.input.find(sample.references[0]) - begin) /
                           static_cast<double>(end - begin);
      EXPECT_NEAR(share, *sample.depth, 8) << "sentences differ in length, and other needles are in the text";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, NeedleTasks,
                         ::testing::Values(Expected{"niah_single_1", 1, 1, 1, false, false, false},
                                           Expected{"niah_single_2", 1, 1, 1, false, false, false},
                                           Expected{"niah_single_3", 1, 1, 1, false, true, false},
                                           Expected{"niah_multikey_1", 4, 1, 1, false, false, false},
                                           Expected{"niah_multikey_2", 1, 1, 1, false, false, true},
                                           Expected{"niah_multikey_3", 1, 1, 1, true, true, true},
                                           Expected{"niah_multivalue", 1, 4, 1, false, false, false},
                                           Expected{"niah_multiquery", 4, 1, 4, false, false, false}),
                         [](const auto& info) { return info.param.task; });

TEST(TrackingTask, IsOneChainOfFourHopsInOrder) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const RulerSample sample = make("vt", 40, seed);
    ASSERT_EQ(sample.references.size(), 5u);
    EXPECT_EQ(set_of(sample.references).size(), 5u);
    const std::string question = sample.input.substr(sample.input.rfind("In the text below"));
    const Texts names = matches(question, "SET ([A-Z]{5}) TO ([A-Z0-9]{5})\\.", 1);
    const Texts sources = matches(question, "SET ([A-Z]{5}) TO ([A-Z0-9]{5})\\.", 2);
    EXPECT_EQ(names, sample.references) << "the chain's order is the text's";
    ASSERT_EQ(sources.size(), 5u);
    EXPECT_TRUE(std::regex_match(sources[0], std::regex("[1-9][0-9]{4}")));
    EXPECT_EQ(Texts(sources.begin() + 1, sources.end()), Texts(names.begin(), names.end() - 1));
    EXPECT_EQ(count(question, sources[0]), 2u) << "in the text and in the question";
    EXPECT_EQ(count(sample.opening, sources[0]), 1u);
    // the example before it: another chain, of shorter names, solved
    const std::string example = sample.input.substr(0, sample.input.rfind("In the text below"));
    const Texts shown = matches(example, "SET ([A-Z]{3}) TO ", 1);
    EXPECT_EQ(set_of(shown).size(), 5u);
    for (const std::string& name : shown)
      EXPECT_EQ(count(example.substr(example.rfind('\n', example.size() - 3)), name), 1u);
  }
}

std::map<std::string, int> frequencies(const Texts& words) {
  std::map<std::string, int> counts;
  for (const std::string& word : words) ++counts[word];
  return counts;
}

TEST(CommonWordsTask, TenWordsComeMostOften) {
  struct Case {
    std::int64_t length;
    int often, seldom, example_words, example_often, example_seldom;
  };
  for (const Case& c : {Case{2048, 6, 1, 20, 3, 1}, Case{4096, 30, 3, 40, 10, 3}}) {
    const RulerSample sample = make("cwe", 500, 3, c.length);
    const std::size_t second = sample.input.rfind("Some words of the numbered list");
    const auto check = [&](const std::string& text, int words, int often, int seldom) {
      const Texts numbers = matches(text.substr(text.find("\n\n")), "([0-9]+)\\. ([a-z-]+)(?= |\n)", 1);
      const Texts list = matches(text.substr(text.find("\n\n")), "([0-9]+)\\. ([a-z-]+)(?= |\n)", 2);
      const std::size_t expected = static_cast<std::size_t>(10 * often + (words - 10) * seldom);
      EXPECT_GE(list.size(), expected);  // of the example, the answer follows
      const auto counts = frequencies({list.begin(), list.begin() + static_cast<std::ptrdiff_t>(expected)});
      for (std::size_t i = 0; i < expected; ++i) EXPECT_EQ(numbers[i], std::to_string(i + 1));
      EXPECT_EQ(counts.size(), static_cast<std::size_t>(words));
      std::set<std::string> common;
      for (const auto& [word, n] : counts) {
        EXPECT_TRUE(n == often || n == seldom) << word << " " << n;
        if (n == often) common.insert(word);
      }
      return common;
    };
    EXPECT_EQ(check(sample.input.substr(second), 500, c.often, c.seldom), set_of(sample.references));
    EXPECT_EQ(sample.references.size(), 10u);
    EXPECT_EQ(check(sample.input.substr(0, second), c.example_words, c.example_often, c.example_seldom).size(), 10u);
    for (const std::string& word : matches(sample.input.substr(second), "[0-9]+\\. ([a-z-]+)", 1)) {
      for (const std::string& common : sample.references)
        EXPECT_TRUE(word == common || word.find(common) == std::string::npos) << common << " is part of " << word;
    }
  }
}

TEST(FrequentWordsTask, FrequenciesFallAsTheSquareOfTheRank) {
  const RulerSample sample = make("fwe", 1000, 3, 2048);
  const std::string text =
      sample.input.substr(sample.input.find("\n\n"), sample.input.rfind("\n\n") - sample.input.find("\n\n"));
  Texts words;
  std::istringstream in(text);
  for (std::string word; in >> word;) words.push_back(word);
  const auto counts = frequencies(words);
  EXPECT_EQ(counts.at("..."), 607) << "1000 · 6/π²";
  ASSERT_EQ(sample.references.size(), 3u);
  EXPECT_EQ(counts.at(sample.references[0]), 151);
  EXPECT_EQ(counts.at(sample.references[1]), 67);
  EXPECT_EQ(counts.at(sample.references[2]), 37);
  EXPECT_EQ(counts.size(), 24u) << "of 40 code words those with 1000 · 6/π² / rank² ≥ 1";
  for (const auto& [word, n] : counts) EXPECT_TRUE(word == "..." || std::regex_match(word, std::regex("[a-z]{6}")));
}

TEST(RulerTasks, TheOfficialTable) {
  std::map<std::string_view, int> most;
  for (const RulerTask& task : ruler_tasks()) {
    most[task.name] = task.max_tokens;
    EXPECT_EQ(task.any, task.name.starts_with("qa"));
    EXPECT_EQ(task.recipe == nullptr, task.any);
  }
  EXPECT_EQ(most.size(), 13u);
  EXPECT_EQ(most["niah_single_1"], 128);
  EXPECT_EQ(most["niah_multiquery"], 128);
  EXPECT_EQ(most["vt"], 30);
  EXPECT_EQ(most["cwe"], 120);
  EXPECT_EQ(most["fwe"], 50);
  EXPECT_EQ(most["qa_2"], 32);
}

TEST(RulerTasks, NeedlesAreHiddenAtTheirDepths) {
  const Texts units = {"0", "1", "2", "3"};
  EXPECT_EQ(hide(units, {"a", "b"}, {0, 100}), (Texts{"a", "0", "1", "2", "3", "b"}));
  EXPECT_EQ(hide(units, {"a", "b"}, {50, 51}), (Texts{"0", "1", "a", "b", "2", "3"}));
  EXPECT_EQ(hide(units, {}, {}), units);
  Random random(1, "depths");
  const std::vector<int> depths = sample_depths(random, 40);
  EXPECT_EQ(depths.front(), 0);
  EXPECT_EQ(depths[1], 3) << "round(100/39)";
  EXPECT_EQ(depths.back(), 100);
}

std::uint64_t fingerprint(const RulerSample& sample) {
  std::uint64_t hash = 0xcbf29ce484222325;
  std::string text = sample.input + "|" + sample.opening;
  for (const std::string& reference : sample.references) text += "|" + reference;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

/// A change of these values changes everyone's questions: figures of earlier versions cannot be compared any more.
TEST(RulerTasks, QuestionsAreTheSameOnEveryMachine) {
  const std::map<std::string_view, std::uint64_t> golden = {{"niah_single_1", 7794791292506013763u},
                                                            {"niah_single_2", 3300647095763127024u},
                                                            {"niah_single_3", 9863557395728972382u},
                                                            {"niah_multikey_1", 12962061049119426712u},
                                                            {"niah_multikey_2", 5140823440406838655u},
                                                            {"niah_multikey_3", 4257671885634037269u},
                                                            {"niah_multivalue", 1421634374513062110u},
                                                            {"niah_multiquery", 3507379796993746734u},
                                                            {"vt", 8406693186947631491u},
                                                            {"cwe", 2846053271390877352u},
                                                            {"fwe", 8727670187833995691u}};
  for (const RulerTask& task : ruler_tasks()) {
    if (!task.recipe) continue;
    const RulerSample sample = make(task.name, 70, 11);
    EXPECT_EQ(fingerprint(sample), golden.at(task.name)) << task.name;
    EXPECT_EQ(fingerprint(make(task.name, 70, 11)), fingerprint(sample));
    EXPECT_NE(fingerprint(make(task.name, 70, 12)), fingerprint(sample));
  }
}

TEST(RulerTasks, FillTheTokensThatAreAskedFor) {
  const auto file = test::fixtures() / "tokenizers" / "llama3" / "tokenizer.json";
  FASTKV_REQUIRE_FILE(file);
  const Tokenizer tokenizer = Tokenizer::from_file(file.string());
  const Haystack haystack;
  for (const RulerTask& task : ruler_tasks()) {
    for (std::int64_t length : {1024, 4096}) {
      if (!task.recipe) continue;
      const auto tokens = [&](const RulerSample& sample) {
        return static_cast<std::int64_t>(encode_turn(tokenizer, "llama3", {}, sample.input + sample.opening).size());
      };
      const RulerSample sample = generate_sample(task, haystack, length, 3, 1, tokens);
      const std::int64_t used = tokens(sample) + task.max_tokens;
      EXPECT_LE(used, length) << task.name;
      // a unit of text: five noise sentences, a note of two uuids, a word three times, steps of word counts
      EXPECT_GT(used, length - 64) << task.name;
      EXPECT_EQ(sample.task, task.name);
      EXPECT_EQ(sample.length, length);
    }
  }
}

}  // namespace
}  // namespace fastkv::tools
