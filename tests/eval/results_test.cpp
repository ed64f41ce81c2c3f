// Results files: what is kept when a run is stopped or the disk is full, and what may go on with them.
#include <gtest/gtest.h>

#include "common/cli.hpp"
#include "fastkv-eval/results.hpp"
#include "fastkv/error.hpp"
#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

using tools::Results;
using Existing = Results::Existing;

OrderedJson read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return OrderedJson::parse(file);
}

/// The file but for what no two runs share.
OrderedJson untimed(const std::string& path) {
  OrderedJson json = read(path);
  for (OrderedJson& example : json["examples"]) example.erase("prefill_ms");
  return json;
}

template <class E>
std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

const OrderedJson kSettings = {{"model", "m"}, {"methods", {{"full", {{"a", 1}}}}}, {"lengths", {1, 2}}};

TEST(ResultsFile, KeepsExamplesInTheOrderTheyWereFinished) {
  const Scratch scratch;
  const std::string path = scratch / "out.json";
  {
    Results results(path, Existing::refuse, "t", kSettings);
    results.add("b/2", {{"score", 1}});
    results.add("a/1", {{"score", 0}});
    EXPECT_EQ(results.find("a/1")->at("score"), 0);
    EXPECT_EQ(results.find("c/1"), nullptr);
    EXPECT_FALSE(std::filesystem::exists(path)) << "written at most every two seconds";
    results.save();
  }
  OrderedJson json = read(path);
  EXPECT_FALSE(json["complete"]);
  EXPECT_EQ(json["examples"][0], (OrderedJson{{"key", "b/2"}, {"score", 1}}));
  EXPECT_EQ(json["examples"][1]["key"], "a/1");

  Results again(path, Existing::resume, "t", kSettings);
  EXPECT_TRUE(again.resumed());
  again.add("c/1", {{"score", 2}});
  again.finish({{{"method", "full"}}});
  json = read(path);
  EXPECT_TRUE(json["complete"]);
  EXPECT_EQ(json["examples"].size(), 3u);
  EXPECT_EQ(json["scores"][0]["method"], "full");
  EXPECT_EQ(json["settings"], kSettings);
}

TEST(ResultsFile, AnExistingFileIsNotLost) {
  const Scratch scratch;
  const std::string path = scratch / "out.json";
  Results(path, Existing::refuse, "t", kSettings).finish({});
  EXPECT_EQ(refusal<tools::UsageError>([&] { Results(path, Existing::refuse, "t", kSettings); }),
            path + " exists: --resume goes on with it, --overwrite replaces it");
  Results(path, Existing::overwrite, "t", {{"other", 1}}).finish({});
  EXPECT_EQ(read(path)["settings"], (OrderedJson{{"other", 1}}));
}

TEST(ResultsFile, OtherSettingsAreNamed) {
  const Scratch scratch;
  const std::string path = scratch / "out.json";
  Results(path, Existing::refuse, "t", kSettings).finish({});
  const auto with = [&](const char* name, OrderedJson value) {
    OrderedJson settings = kSettings;
    settings[name] = std::move(value);
    return refusal<tools::UsageError>([&] { Results(path, Existing::resume, "t", settings); });
  };
  EXPECT_EQ(with("lengths", {1, 3}), path + " was made with other settings: \"lengths\" was [1,2], now [1,3]");
  EXPECT_EQ(with("seed", 1), path + " was made with other settings: \"seed\" was none, now 1");
  EXPECT_EQ(with("methods", {{"full", {{"a", 2}}}}),
            path + " was made with other settings: \"full\" was {\"a\":1}, now {\"a\":2}");
  // methods may come and go: the others' examples stay
  EXPECT_EQ(with("methods", {{"fastkv", {{"a", 2}}}}), "nothing was thrown");
}

TEST(ResultsFile, WrongFiles) {
  const Scratch scratch;
  const auto found = [&](const std::string& text) {
    const std::string path = scratch.write("x.json", text);
    const std::string what = refusal<Error>([&] { Results(path, Existing::resume, "t", kSettings); });
    return what.substr(what.rfind("found "));
  };
  EXPECT_EQ(found("{\"tool\""), "found no JSON object");
  EXPECT_EQ(found("[1]"), "found no JSON object");
  EXPECT_EQ(found("{\"tool\": \"u\"}"), "found \"u\"");
  EXPECT_EQ(found("{\"tool\": \"t\"}"), "found no \"settings\"");
  EXPECT_EQ(found("{\"tool\": \"t\", \"settings\": {}}"), "found no \"examples\"");
  OrderedJson file = {{"tool", "t"}, {"settings", kSettings}, {"examples", {{{"score", 1}}}}};
  EXPECT_EQ(found(file.dump()), "found an example without \"key\"");
}

TEST(ResultsFile, AFullDiskKeepsWhatWasWritten) {
  const Scratch scratch;
  const std::string path = scratch / "folder/out.json";
  std::filesystem::create_directory(scratch / "folder");
  Results results(path, Existing::refuse, "t", kSettings);
  results.add("a", {{"score", 1}});
  results.save();
  results.add("b", {{"score", 1}});
  std::filesystem::remove_all(scratch / "folder");  // as good as full: the next write fails, also for root
  EXPECT_NE(refusal<Error>([&] {
              results.save();
            }).find("; 1 of 2 finished examples are in it: make room, then go on with --resume"),
            std::string::npos);
}

// A run that is stopped and resumed ends with the same file as one that is not.
TEST(ResumedRun, EqualsAWholeOne) {
  const std::string model = (fixtures() / "models" / "stories260K-f32.gguf").string();
  FASTKV_REQUIRE_FILE(model);
  const Scratch scratch;
  std::string rows;
  for (int i = 0; i < 400; ++i)
    rows += OrderedJson{{"prompt", "Once upon a time there was number " + std::to_string(i)},
                        {"continuation", " and it was big"}}
                .dump() +
            "\n";
  const std::string file = scratch.write("rows.jsonl", rows);
  const auto arguments = [&](const std::string& out, std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"nll", "-m", model, "--rows", file, "-o", scratch / out, "--progress", "json", "-t", "1"});
    return more;
  };
  EXPECT_EQ(run_program("fastkv-eval", arguments("whole.json")).status, 0);
  Process stopped("fastkv-eval", arguments("parts.json"));
  ASSERT_TRUE(stopped.wait_until([&] { return stopped.err().find("\"processed\":20,") != std::string::npos; }));
  stopped.send(SIGINT);
  EXPECT_EQ(stopped.wait().status, 130);
  const OrderedJson part = read(scratch / "parts.json");
  EXPECT_FALSE(part["complete"]);
  EXPECT_GE(part["examples"].size(), 20u);
  EXPECT_LT(part["examples"].size(), 800u);
  EXPECT_EQ(run_program("fastkv-eval", arguments("parts.json")).status, 2) << "--resume was not asked for";
  EXPECT_EQ(run_program("fastkv-eval", arguments("parts.json", {"--resume"})).status, 0);
  EXPECT_TRUE(untimed(scratch / "parts.json") == untimed(scratch / "whole.json")) << "too long to show";
  // nothing is left to do: the model is not even loaded
  const Outcome again = run_program("fastkv-eval", arguments("parts.json", {"--resume"}));
  EXPECT_EQ(again.status, 0);
  EXPECT_EQ(again.err.find("\"event\""), std::string::npos) << again.err;
}

}  // namespace
}  // namespace fastkv::test
