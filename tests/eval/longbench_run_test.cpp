// fastkv-eval longbench as a user sees it: the multi_news fixture, LongBench-E, predictions, what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "core/json.hpp"
#include "fastkv-eval/metrics.hpp"
#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

class LongBench : public ::testing::Test {
 protected:
  void SetUp() override {
    FASTKV_REQUIRE_FILE(model_);
    for (const char* folder : {"lb/data", "lb/config"}) std::filesystem::create_directories(root_ / folder);
    root_.write("lb/config/dataset2prompt.json", R"({
      "multi_news": "Some news:\n{context}\nIn short:", "qasper": "{context}\nWhat of {input}?",
      "dureader": "{context}{input}", "trec": "{context}{input}", "lcc": "{context}"})");
    root_.write("lb/config/dataset2maxlen.json", R"({"multi_news": 16, "qasper": 6, "dureader": 4, "lcc": 600})");
  }
  /// Records of one letter more each; lengths are 9000, 3000, 6000, 9000, …
  void write_set(const std::string& title, int records, const char* answer = "the little girl was") const {
    std::string lines;
    for (int i = 0; i < records; ++i) {
      lines += OrderedJson{{"input", "the " + std::string(static_cast<std::size_t>(i), 'x')},
                           {"context", "Once upon a time"},
                           {"answers", {"nothing", answer}},
                           {"length", 3000 + 3000 * ((i + 2) % 3)},
                           {"all_classes", nullptr}}
                   .dump() +
               "\n";
    }
    root_.write("lb/data/" + title + ".jsonl", lines);
  }
  std::vector<std::string> arguments(std::vector<std::string> more) const {
    more.insert(more.begin(),
                {"longbench", "-m", model_, "--data", root_ / "lb", "-c", "512", "--compute", "f32", "-t", "1"});
    return more;
  }
  OrderedJson read(const char* name) const { return OrderedJson::parse(file_bytes(root_ / name)); }
  std::string refusal(std::vector<std::string> more, int status) const {
    const Outcome outcome = run_program("fastkv-eval", arguments(std::move(more)));
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    const std::size_t last = outcome.err.rfind('\n', outcome.err.size() - 2) + 1;
    return outcome.err.substr(last);
  }

  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
  const Scratch root_;
};

TEST_F(LongBench, MultiNews) {
  const std::filesystem::path news = fixtures() / "text" / "longbench_multi_news.head10.jsonl";
  FASTKV_REQUIRE_FILE(news);
  std::filesystem::copy_file(news, root_ / "lb/data/multi_news.jsonl");
  const Outcome outcome = run_program(
      "fastkv-eval", arguments({"--limit", "3", "--max-input", "300", "--method", "full,snapkv", "--retention", "0.3",
                                "-o", root_ / "out.json", "--predictions", root_ / "p"}));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("multi_news: 3 questions in at most 300 tokens, 3 of them cut; answers of at most 16\n"),
            std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find("note: not among the files: narrativeqa, qasper, "), std::string::npos);
  EXPECT_EQ(outcome.out.rfind("task        method  n ", 0), 0u) << outcome.out;

  const OrderedJson result = read("out.json");
  EXPECT_EQ(result["tool"], "fastkv-eval longbench");
  EXPECT_EQ(result["settings"]["max_input"], 300);
  EXPECT_EQ(result["settings"]["context"], 512);
  ASSERT_EQ(result["examples"].size(), 6u);
  std::istringstream lines(file_bytes(root_ / "p/pred/stories260K-f32-snapkv/multi_news.jsonl"));
  std::ifstream records(news);
  double sum = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const OrderedJson& example = result["examples"][2 * i + 1];
    EXPECT_EQ(example["key"], "multi_news/" + std::to_string(i + 1) + "/snapkv");
    EXPECT_LE(example["prompt_tokens"].get<int>(), 304) << "text that is cut and read again may have a few more";
    EXPECT_GE(example["prompt_tokens"].get<int>(), 290);
    EXPECT_TRUE(example["cut"].get<bool>());
    std::string line, record;
    ASSERT_TRUE(std::getline(lines, line) && std::getline(records, record));
    const Json prediction = Json::parse(line), asked = Json::parse(record);
    EXPECT_EQ(prediction["pred"], example["answer"]);
    for (const char* field : {"answers", "all_classes", "length"}) EXPECT_EQ(prediction[field], asked[field]);
    EXPECT_EQ(example["_id"], asked["_id"]);
    const double score = tools::rouge_l(prediction["pred"].get<std::string>(), asked["answers"][0].get<std::string>());
    EXPECT_EQ(example["score"].get<double>(), score);
    sum += score;
  }
  EXPECT_GT(sum, 0);
  const OrderedJson& score = result["scores"][1];
  EXPECT_EQ(score["task"], "multi_news");
  EXPECT_EQ(score["method"], "snapkv");
  EXPECT_EQ(score["n"], 3);
  EXPECT_NEAR(score["score"]["mean"].get<double>(), 100 * sum / 3, 1e-9);
}

TEST_F(LongBench, ScoresByLengthAndSetsThatAreNotScored) {
  write_set("qasper_e", 7);
  write_set("dureader", 2);
  write_set("qasper", 2);
  const Outcome outcome =
      run_program("fastkv-eval", arguments({"--datasets", "qasper_e,dureader,qasper", "--method", "full", "-o",
                                            root_ / "out.json", "--predictions", root_ / "p"}));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("; not scored: --predictions writes them for LongBench's scorer\n"), std::string::npos);
  const OrderedJson scores = read("out.json")["scores"];
  ASSERT_EQ(scores.size(), 4u) << scores.dump(1);
  EXPECT_EQ(scores[0]["task"], "qasper");
  EXPECT_FALSE(scores[0].contains("class"));
  std::vector<std::string> classes;
  std::vector<int> counts;
  for (std::size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(scores[i]["task"], "qasper_e");
    classes.push_back(scores[i]["class"]);
    counts.push_back(scores[i]["n"]);
  }
  EXPECT_EQ(classes, (std::vector<std::string>{"0-4k", "4-8k", "8k+"}));
  EXPECT_EQ(counts, (std::vector<int>{2, 2, 3}));
  for (const char* file : {"pred_e/stories260K-f32-full/qasper.jsonl", "pred/stories260K-f32-full/dureader.jsonl",
                           "pred/stories260K-f32-full/qasper.jsonl"})
    EXPECT_TRUE(std::filesystem::exists(root_ / ("p/" + std::string(file)))) << file;
  const OrderedJson results = read("out.json");
  for (const OrderedJson& example : results["examples"])
    EXPECT_EQ(example.contains("score"), example["task"] != "dureader");
}

// Ctrl-C, then --resume: the same as one run, but for the times.
TEST_F(LongBench, GoesOn) {
  write_set("qasper", 300);
  const auto run = [&](const char* out, const char* predictions) {
    return arguments({"-o", root_ / out, "--predictions", root_ / predictions, "--progress", "json", "--resume"});
  };
  ASSERT_EQ(run_program("fastkv-eval", run("whole.json", "whole")).status, 0);
  Process stopped("fastkv-eval", run("parts.json", "parts"));
  ASSERT_TRUE(stopped.wait_until([&] { return stopped.err().find("\"processed\":20,") != std::string::npos; }));
  stopped.send(SIGINT);
  EXPECT_EQ(stopped.wait().status, 130);
  EXPECT_GE(read("parts.json")["examples"].size(), 20u);
  EXPECT_LT(read("parts.json")["examples"].size(), 600u);
  const Outcome rest = run_program("fastkv-eval", run("parts.json", "parts"));
  EXPECT_EQ(rest.status, 0) << rest.err;
  const auto without_times = [&](const char* name) {
    OrderedJson json = read(name);
    for (OrderedJson& example : json["examples"])
      for (const char* time : {"prefill_ms", "decode_ms"}) EXPECT_EQ(example.erase(time), 1u);
    return json;
  };
  EXPECT_EQ(without_times("parts.json"), without_times("whole.json"));
  const std::string predictions = file_bytes(root_ / "whole/pred/stories260K-f32-fastkv/qasper.jsonl");
  EXPECT_EQ(std::count(predictions.begin(), predictions.end(), '\n'), 300);
  EXPECT_EQ(file_bytes(root_ / "parts/pred/stories260K-f32-fastkv/qasper.jsonl"), predictions);
}

TEST_F(LongBench, AFullDiskForPredictionsKeepsTheAnswers) {
  write_set("qasper", 3);
  std::filesystem::create_directories(root_ / "p/pred/stories260K-f32-full");
  const std::string full = root_ / "p/pred/stories260K-f32-full/qasper.jsonl";
  std::filesystem::create_symlink("/dev/full", full);
  const std::string what = refusal({"--method", "full", "-o", root_ / "out.json", "--predictions", root_ / "p"}, 1);
  EXPECT_NE(what.find(full + ": No space left on device"), std::string::npos) << what;
  EXPECT_EQ(read("out.json")["examples"].size(), 3u);
  std::filesystem::remove(full);
  const Outcome rest =
      run_program("fastkv-eval",
                  arguments({"--method", "full", "-o", root_ / "out.json", "--resume", "--predictions", root_ / "p"}));
  EXPECT_EQ(rest.status, 0) << rest.err;
  EXPECT_NE(rest.err.find("resumed: 3 of 3 answers"), std::string::npos) << rest.err;
  EXPECT_TRUE(std::filesystem::exists(full));
}

TEST_F(LongBench, WhatIsWrongIsOneLine) {
  EXPECT_EQ(refusal({"--datasets", "multinews"}, 2),
            "fastkv-eval: --datasets multinews: no data set \"multinews\" in LongBench; did you mean multi_news?\n");
  EXPECT_EQ(refusal({"--max-input", "1"}, 2), "fastkv-eval: --max-input 1: must be 2 or more\n");
  EXPECT_EQ(refusal({"--data", ""}, 2), "fastkv-eval: no data: --data DIR\n");
  EXPECT_EQ(refusal({"--data", root_ / "none"}, 1),
            "fastkv-eval: " + root_ / "none" +
                ": expected LongBench's files, data/*.jsonl and config/*.json; there is "
                "no folder " +
                root_ / "none/data" + "\n");
  EXPECT_EQ(refusal({}, 1), "fastkv-eval: none of the data sets is there, the first would be " +
                                root_ / "lb/data/narrativeqa.jsonl" + "\n");
  write_set("qasper", 2);
  EXPECT_EQ(refusal({"--datasets", "qasper,trec"}, 1),
            "fastkv-eval: no data set trec: there is no file " + root_ / "lb/data/trec.jsonl" + "\n");
  EXPECT_EQ(refusal({"--predictions", model_}, 1),
            "fastkv-eval: cannot make the folder " + model_ + "/pred/stories260K-f32-full: Not a directory\n");
  root_.write("lb/data/qasper.jsonl", file_bytes(root_ / "lb/data/qasper.jsonl") + "{\"input\"\n");
  EXPECT_EQ(refusal({}, 1), "fastkv-eval: " + root_ / "lb/data/qasper.jsonl" + ": line 3: not JSON\n");
  std::filesystem::remove(root_ / "lb/data/qasper.jsonl");
  write_set("trec", 1);
  EXPECT_EQ(refusal({}, 1), "fastkv-eval: " + root_ / "lb/config/dataset2maxlen.json" + ": no field \"trec\"\n");
  std::filesystem::remove(root_ / "lb/data/trec.jsonl");
  write_set("lcc", 1);
  EXPECT_EQ(refusal({}, 1),
            "fastkv-eval: lcc: its answers of up to 600 tokens leave no prompt in a context of 512: raise -c\n");
}

}  // namespace
}  // namespace fastkv::test
