// LongBench's sets, files and prompts: choices, templates, records that are wrong, cutting in the middle.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "common/chat.hpp"
#include "common/cli.hpp"
#include "fastkv-eval/longbench/files.hpp"
#include "fastkv-eval/longbench/predictions.hpp"
#include "fastkv-eval/longbench/prompts.hpp"
#include "fastkv/error.hpp"
#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::tools {
namespace {

using test::fixtures;
using test::Scratch;

template <class E, class Body>
std::string refusal(const Body& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

DataSet set_of(const std::string& title) { return parse_data_sets(title).sets.at(0); }

TEST(LongBenchSets, Choices) {
  const auto titles = [](const std::string& list) {
    std::string all;
    for (const DataSet& set : parse_data_sets(list).sets) all += set.title() + " ";
    return all;
  };
  EXPECT_EQ(titles(""),
            "narrativeqa qasper multifieldqa_en hotpotqa 2wikimqa musique gov_report qmsum multi_news trec triviaqa "
            "samsum passage_count passage_retrieval_en lcc repobench-p ");
  EXPECT_EQ(parse_data_sets("all").sets.size(), 21u);
  EXPECT_EQ(titles("e"),
            "qasper_e multifieldqa_en_e hotpotqa_e 2wikimqa_e gov_report_e multi_news_e trec_e triviaqa_e samsum_e "
            "passage_count_e passage_retrieval_en_e lcc_e repobench-p_e ");
  EXPECT_EQ(titles("trec_e,lsht"), "trec_e lsht ");
  EXPECT_TRUE(parse_data_sets("trec").named);
  EXPECT_FALSE(parse_data_sets("all").named);
  const auto wrong = [](const char* list) { return refusal<UsageError>([&] { parse_data_sets(list); }); };
  EXPECT_EQ(wrong("trec,qaspr"), "no data set \"qaspr\" in LongBench; did you mean qasper?");
  EXPECT_EQ(wrong("musique_e"), "no data set \"musique_e\" in LongBench; did you mean musique?");
  EXPECT_EQ(wrong("zzzzzzzzzzzzzzzzzzzzzzzz"), "no data set \"zzzzzzzzzzzzzzzzzzzzzzzz\" in LongBench");
  EXPECT_EQ(wrong("trec,trec"), "trec is named twice");
  EXPECT_EQ(wrong("trec,"), "an entry of the list is empty");
}

TEST(LongBenchSets, ScoresTheBestAnswerOfWhatCounts) {
  EXPECT_EQ(score(set_of("qasper"), "a red house", {"blue", "red"}, {}), 2. / 3);
  EXPECT_EQ(score(set_of("qasper"), "red\nQuestion", {"red"}, {}), 2. / 3) << "all of it";
  EXPECT_EQ(score(set_of("triviaqa"), "\nred\nQuestion", {"red"}, {}), 1) << "the first line";
  EXPECT_NEAR(score(set_of("samsum"), "red\nblue", {"red"}, {}), 1, 1e-8);
  EXPECT_EQ(score(set_of("trec"), "\nCity\nFood", {"City"}, {"City", "Food"}), 1);
  EXPECT_EQ(score(set_of("trec_e"), "City, Food", {"City"}, {"City", "Food"}), 0.5);
  EXPECT_EQ(score(set_of("passage_count"), "3", {"3"}, {}), 1);
  EXPECT_EQ(score(set_of("passage_retrieval_en"), "It is 4", {"Paragraph 4"}, {}), 1);
  EXPECT_EQ(score(set_of("lcc"), "\n# c\nx = 1\ny", {"x = 1"}, {}), 1);
  EXPECT_FALSE(set_of("dureader").metric) << "Chinese words need segmentation";
}

TEST(LongBenchSets, ClassesOfLength) {
  EXPECT_EQ(length_class(3999), "0-4k");
  EXPECT_EQ(length_class(4000), "4-8k");
  EXPECT_EQ(length_class(7999), "4-8k");
  EXPECT_EQ(length_class(8000), "8k+");
}

TEST(LongBenchTemplates, FillIn) {
  EXPECT_EQ(fill_template("Read: {context}\n{{x}} {input}?{input}", "a {input} b", "q"), "Read: a {input} b\n{x} q?q")
      << "what is filled in is not looked at again";
  const auto wrong = [](const char* pattern) { return refusal<Error>([&] { fill_template(pattern, "", ""); }); };
  EXPECT_EQ(wrong("a {question}"), "expected {context}, {input} or doubled braces, found \"{question}\"");
  EXPECT_EQ(wrong("a { b"), "expected {context}, {input} or doubled braces, found \"{ b\"");
  EXPECT_EQ(wrong("a } b"), "expected {context}, {input} or doubled braces, found \"}\"");
}

// ---- files ----------------------------------------------------------------------------------------------------------

constexpr const char* kRecord =
    R"({"input": "q", "context": "c", "answers": ["a"], "length": 7, "all_classes": null, "_id": "x1"})";

class LongBenchFolder : public ::testing::Test {
 protected:
  LongBenchFolder() {
    std::filesystem::create_directories(root_ / "lb/data");
    std::filesystem::create_directories(root_ / "lb/config");
    root_.write("lb/config/dataset2prompt.json", R"({"qasper": "{context}|{input}", "trec": "{x}", "lcc": 1})");
    root_.write("lb/config/dataset2maxlen.json", R"({"qasper": 20, "trec": 0, "lcc": "x"})");
  }
  /// The message about qasper's file with that text, without the path.
  std::string wrong(const std::string& text, const char* set = "qasper") {
    const std::string path = root_.write(std::string("lb/data/") + set + ".jsonl", text);
    if (std::string(set) != "qasper") {
      root_.write("lb/config/dataset2prompt.json", R"({"trec": "", "passage_retrieval_en": ""})");
    }
    const std::string what = refusal<Error>([&] { LongBenchFiles(folder_).read(set_of(set), 0); });
    EXPECT_EQ(what.rfind(path + ": ", 0), 0u) << what;
    return what.substr(std::min(what.size(), path.size() + 2));
  }

  const Scratch root_;
  const std::string folder_ = root_ / "lb";
};

TEST_F(LongBenchFolder, ReadsRecords) {
  root_.write("lb/data/qasper.jsonl", std::string(kRecord) + "\n\n" +
                                          R"({"input": "", "context": "d", "answers": ["a", "b"], "length": 9,)" +
                                          R"( "all_classes": ["x"], "dataset": "qasper", "language": "en"})");
  const LongBenchFiles files(folder_);
  EXPECT_TRUE(files.has(set_of("qasper")));
  EXPECT_FALSE(files.has(set_of("qasper_e")));
  EXPECT_EQ(files.max_tokens(set_of("qasper")), 20);
  EXPECT_EQ(files.max_tokens(set_of("qasper_e")), 20) << "configured under the same name";
  const std::vector<Record> records = files.read(set_of("qasper"), 0);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].prompt, "c|q");
  EXPECT_EQ(records[0].id, "x1");
  EXPECT_EQ(records[0].length, 7);
  EXPECT_EQ(records[1].line, 3);
  EXPECT_EQ(records[1].answers, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(records[1].classes, std::vector<std::string>{"x"});
  EXPECT_EQ(files.read(set_of("qasper"), 1).size(), 1u);
}

TEST_F(LongBenchFolder, ConfigurationMayLieInTheRepositorysFolder) {
  std::filesystem::create_directories(root_ / "lb/LongBench");
  std::filesystem::rename(root_ / "lb/config", root_ / "lb/LongBench/config");
  EXPECT_EQ(LongBenchFiles(folder_).max_tokens(set_of("qasper")), 20);
}

TEST_F(LongBenchFolder, WrongRecordsAreNamedByTheirLine) {
  const std::string good = std::string(kRecord) + "\n";
  EXPECT_EQ(wrong(good + "{\"input\": "), "line 2: not JSON");
  EXPECT_EQ(wrong("[]"), "line 1: expected an object, found array");
  EXPECT_EQ(wrong(R"({"input": "q"})"), "line 1: no field \"context\"");
  EXPECT_EQ(wrong(good + R"({"input": "q", "context": "c", "answers": "a"})"),
            "line 2: \"answers\": expected an array of texts, found string");
  EXPECT_EQ(wrong(R"({"input": "q", "context": "c", "answers": [1]})"),
            "line 1: \"answers\": expected an array of texts, found one with number");
  EXPECT_EQ(wrong(R"({"input": "q", "context": "c", "answers": ["a"], "length": 1.5})"),
            "line 1: \"length\": expected an integer, found 1.5");
  EXPECT_EQ(wrong(R"({"input": "q", "context": "c", "answers": ["a"], "length": 1})"),
            "line 1: no field \"all_classes\"");
  EXPECT_EQ(wrong(R"({"input": 1, "context": "c", "answers": ["a"], "length": 1, "all_classes": null})"),
            "line 1: \"input\": expected a text, found number");
  EXPECT_EQ(wrong(R"({"input": "q", "context": "c", "answers": [], "length": 1, "all_classes": null})"),
            "line 1: \"answers\" is empty");
  EXPECT_EQ(wrong("\n \n"), "no records");
  EXPECT_EQ(wrong("{\"input\": \"\xFF\"}"), "line 1: not JSON");
  EXPECT_EQ(wrong(good, "trec"), "line 1: \"all_classes\": expected the names of the classes, found none");
  EXPECT_EQ(wrong(good, "passage_retrieval_en"), "line 1: expected an answer \"Paragraph N\", found \"a\"");
}

TEST_F(LongBenchFolder, WrongConfigurationIsNamed) {
  const auto message = [&](auto body) { return refusal<Error>([&] { body(LongBenchFiles(folder_)); }); };
  const auto read = [](const char* set) { return [=](const LongBenchFiles& files) { files.read(set_of(set), 0); }; };
  const auto tokens = [](const char* set) {
    return [=](const LongBenchFiles& files) { files.max_tokens(set_of(set)); };
  };
  const std::string prompts = folder_ + "/config/dataset2prompt.json",
                    lengths = folder_ + "/config/dataset2maxlen.json";
  EXPECT_EQ(message(read("vcsum")), prompts + ": no field \"vcsum\"");
  EXPECT_EQ(message(read("lcc")), prompts + ": \"lcc\": expected a text, found number");
  EXPECT_EQ(message(read("trec")),
            prompts + ": \"trec\": expected {context}, {input} or doubled braces, found \"{x}\"");
  EXPECT_EQ(message(read("qasper")), "cannot open " + folder_ + "/data/qasper.jsonl" + ": No such file or directory");
  EXPECT_EQ(message(tokens("vcsum")), lengths + ": no field \"vcsum\"");
  EXPECT_EQ(message(tokens("lcc")), lengths + ": \"lcc\": expected an integer, found string");
  EXPECT_EQ(message(tokens("trec")), lengths + ": \"trec\": expected a number of tokens, found 0");
}

TEST_F(LongBenchFolder, MissingFilesAreNamed) {
  const auto message = [&](const std::string& folder) {
    const std::string what = refusal<Error>([&] { LongBenchFiles files(folder); });
    EXPECT_EQ(what.find('\n'), std::string::npos);
    return what;
  };
  root_.write("lb/config/dataset2prompt.json", "{");
  EXPECT_EQ(message(folder_), folder_ + "/config/dataset2prompt.json: not JSON");
  root_.write("lb/config/dataset2prompt.json", "[]");
  EXPECT_EQ(message(folder_), folder_ + "/config/dataset2prompt.json: expected an object, found array");
  std::filesystem::remove(root_ / "lb/config/dataset2prompt.json");
  EXPECT_EQ(message(folder_), "cannot open " + folder_ + "/config/dataset2prompt.json: No such file or directory");
  std::filesystem::remove_all(root_ / "lb/config");
  EXPECT_NE(message(folder_).find("there is neither folder"), std::string::npos);
  EXPECT_NE(message(root_ / "nowhere").find("there is no folder " + root_ / "nowhere/data"), std::string::npos);
}

TEST_F(LongBenchFolder, PredictionsInItsOwnLayout) {
  EXPECT_EQ(predictions_file("p", "m-full", set_of("qasper")), "p/pred/m-full/qasper.jsonl");
  EXPECT_EQ(predictions_file("p", "m-full", set_of("qasper_e")), "p/pred_e/m-full/qasper.jsonl");
  const std::string path = root_ / "p/pred/m/qasper.jsonl";
  const Record first{1, "", "", {"a"}, {}, 7}, second{2, "", "", {"b", "é"}, {"x"}, 8};
  make_folders(path);
  write_predictions(path, {first, second}, {"one\n\"two\"", "caf\xC3"});
  std::ifstream file(path);
  std::string lines((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(lines,
            "{\"pred\":\"one\\n\\\"two\\\"\",\"answers\":[\"a\"],\"all_classes\":null,\"length\":7}\n"
            "{\"pred\":\"caf\uFFFD\",\"answers\":[\"b\",\"é\"],\"all_classes\":[\"x\"],\"length\":8}\n");
  std::filesystem::create_symlink("/dev/full", root_ / "p/pred/m/trec.jsonl");
  EXPECT_NE(refusal<Error>([&] {
              write_predictions(root_ / "p/pred/m/trec.jsonl", {first}, {"x"});
            }).find("No space left on device"),
            std::string::npos);
  EXPECT_EQ(refusal<Error>([&] { make_folders(path + "/m/x.jsonl"); }),
            "cannot make the folder " + path + "/m: Not a directory");
}

// ---- prompts --------------------------------------------------------------------------------------------------------

class LongBenchPrompts : public ::testing::Test {
 protected:
  void SetUp() override { FASTKV_REQUIRE_FILE(file_); }
  const std::string file_ = (fixtures() / "tokenizers" / "llama3" / "tokenizer.json").string();
};

TEST_F(LongBenchPrompts, ShortOnesAreAskedAsTheyAre) {
  const Tokenizer tokenizer = Tokenizer::from_file(file_);
  const Prompt plain = prompt_of(tokenizer, "", "Hello there", 100, 100);
  EXPECT_FALSE(plain.cut);
  EXPECT_EQ(plain.ids, encode_turn(tokenizer, "", {}, "Hello there"));
  EXPECT_EQ(prompt_of(tokenizer, "llama3", "Hello there", 100, 100).ids,
            encode_turn(tokenizer, "llama3", {}, "Hello there"));
}

TEST_F(LongBenchPrompts, LongOnesKeepBothEnds) {
  const Tokenizer tokenizer = Tokenizer::from_file(file_);
  std::string text;
  for (int i = 0; i < 500; ++i) text += " number " + std::to_string(i) + ",";
  std::vector<std::int32_t> whole = encode_turn(tokenizer, "", {}, text);
  const std::span<const std::int32_t> ids = whole;
  ASSERT_GT(whole.size(), 1000u);
  const std::string ends = tokenizer.decode(ids.first(50)) + tokenizer.decode(ids.last(50));

  const Prompt plain = prompt_of(tokenizer, "", text, 101, 400);
  EXPECT_TRUE(plain.cut);
  EXPECT_EQ(plain.ids, encode_turn(tokenizer, "", {}, ends)) << "half of 101 is 50; the first half counts the BOS";
  const Prompt chat = prompt_of(tokenizer, "llama3", text, 101, 400);
  EXPECT_EQ(chat.ids, encode_turn(tokenizer, "llama3", {}, ends)) << "the template stays whole";
  EXPECT_EQ(std::count(chat.ids.begin(), chat.ids.end(), tokenizer.bos()), 1);

  // The limit of all includes the template, and is kept.
  const Prompt tight = prompt_of(tokenizer, "llama3", text, 100, 100);
  EXPECT_TRUE(tight.cut);
  EXPECT_LE(tight.ids.size(), 100u);
  EXPECT_GE(tight.ids.size(), 96u) << "and used";
  const std::int64_t size = std::ssize(encode_turn(tokenizer, "llama3", {}, "Hello there"));
  EXPECT_TRUE(prompt_of(tokenizer, "llama3", "Hello there", 100, size - 1).cut)
      << "only the template makes it too long";
  EXPECT_EQ(refusal<Error>([&] { prompt_of(tokenizer, "llama3", text, 3, 3); }),
            "a prompt of at most 3 tokens holds no text in this chat template: raise -c");
}

TEST_F(LongBenchPrompts, CharactersThatAreCutThroughGo) {
  const Tokenizer tokenizer = Tokenizer::from_file(file_);
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\U0001F9FF\U000103B7";  // several tokens each
  ASSERT_GT(tokenizer.encode(text).size(), 400u);
  for (std::int64_t limit = 20; limit < 40; ++limit) {
    const Prompt prompt = prompt_of(tokenizer, "", text, limit, limit);
    const std::string left = tokenizer.decode(prompt.ids);
    EXPECT_LE(std::ssize(prompt.ids), limit);
    EXPECT_EQ(left.size() % 4, 0u) << limit;
    EXPECT_EQ(left.find("\uFFFD"), left.npos) << limit;
  }
}

}  // namespace
}  // namespace fastkv::tools
