// fastkv-eval ruler as a user sees it: RULER's files, generated questions, what is refused.
#include <gtest/gtest.h>

#include "eval/small_model.hpp"
#include "fastkv-eval/ruler/files.hpp"
#include "fastkv/error.hpp"

namespace fastkv::test {
namespace {

// ---- files ----------------------------------------------------------------------------------------------------------

class RulerFiles : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(scratch_ / name).parent_path());
    return scratch_.write(name, text);
  }
  std::vector<tools::RulerLine> read(const std::string& path, std::vector<std::string> tasks = {},
                                     std::int64_t limit = 0) const {
    return tools::read_ruler({path}, tasks, limit);
  }
  std::string refusal(const std::string& path) const {
    try {
      read(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  const Scratch scratch_;
  const std::string line_ = "{\"index\": 4, \"input\": \"x y\", \"outputs\": [\"a\", \"b\"], \"length\": 9}\n";
};

TEST_F(RulerFiles, TaskAndLengthComeFromThePath) {
  write("8192/vt/validation.jsonl", line_ + "\n" + line_);
  write("4096/data/qa_1.jsonl", line_);
  write("ruler_niah_single_1.head.jsonl", line_);
  write("evtl.jsonl", line_);
  write("notes/readme.txt", "no");
  const auto lines = read(scratch_ / ".");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].sample.task, "qa_1");
  EXPECT_EQ(lines[0].sample.length, 4096);
  EXPECT_EQ(lines[2].sample.task, "vt");
  EXPECT_EQ(lines[2].sample.length, 8192);
  EXPECT_EQ(lines[2].where, scratch_ / "./8192/vt/validation.jsonl: line 3");
  EXPECT_EQ(lines[2].sample.index, 4);
  EXPECT_EQ(lines[2].sample.references, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(lines[3].sample.task, "niah_single_1");
  EXPECT_EQ(lines[3].sample.length, 0);
  EXPECT_EQ(read(scratch_ / ".", {"vt"}).size(), 2u);
  EXPECT_EQ(read(scratch_ / ".", {}, 1).size(), 3u) << "the limit is per file";
}

TEST_F(RulerFiles, WrongLinesAreNamed) {
  const std::string file = scratch_ / "vt.jsonl";
  const auto of = [&](const std::string& text) { return refusal(write("vt.jsonl", text)).substr(file.size()); };
  EXPECT_EQ(of(line_ + "{\n"), ": line 2: not JSON");
  EXPECT_EQ(of("{\"outputs\": [\"a\"]}"), ": line 1: no field \"input\"");
  EXPECT_EQ(of("{\"input\": \"x\"}"), ": line 1: no field \"outputs\"");
  EXPECT_EQ(of("{\"input\": 3, \"outputs\": [\"a\"]}"), ": line 1: \"input\": expected a text, found number");
  EXPECT_EQ(of("{\"input\": \"x\", \"outputs\": []}"), ": line 1: \"outputs\" is empty");
  EXPECT_NE(of("{\"input\": \"x\", \"outputs\": \"a\"}").find(": line 1: \"outputs\": expected "), std::string::npos);
  EXPECT_EQ(of("\n"), ": no questions");
  EXPECT_EQ(refusal(scratch_ / "none/vt.jsonl"),
            "cannot open " + (scratch_ / "none/vt.jsonl") + ": No such file or directory");
  EXPECT_EQ(refusal(write("unnamed.jsonl", line_)),
            (scratch_ / "unnamed.jsonl") +
                ": expected a task of RULER (niah_single_1, vt, qa_1, …) in the name of the file or its folder");
  std::filesystem::create_directories(scratch_ / "empty");
  EXPECT_EQ(refusal(scratch_ / "empty"),
            (scratch_ / "empty") +
                ": expected a task of RULER (niah_single_1, vt, qa_1, …) in the name of a .jsonl "
                "file below it or of the file's folder");
}

TEST_F(RulerFiles, WhatIsWrittenIsReadAgain) {
  tools::RulerSample sample;
  sample.task = "vt";
  sample.index = 2;
  sample.length = 1024;
  sample.input = "é\n\"quoted\"";
  sample.opening = "The answer is";
  sample.references = {"A", "B"};
  tools::write_ruler(scratch_ / "out", {sample, sample});
  const auto lines = read(scratch_ / "out");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1].where, scratch_ / "out/1024/vt.jsonl: line 2");
  const tools::RulerSample& found = lines[1].sample;
  EXPECT_EQ(std::tie(found.task, found.index, found.length, found.input, found.opening, found.references),
            std::tie(sample.task, sample.index, sample.length, sample.input, sample.opening, sample.references));
}

// ---- the program ----------------------------------------------------------------------------------------------------

class Ruler : public OnSmallModel {
 protected:
  Ruler() : OnSmallModel("ruler") {}
};

TEST_F(Ruler, TheFixturesRowsEndToEnd) {
  const auto file = fixtures() / "text" / "ruler4096_niah_multikey_3.head20.jsonl";
  FASTKV_REQUIRE_FILE(file);
  const OrderedJson found = result({"--data", file.string(), "--method", "fastkv"});
  EXPECT_EQ(found["tool"], "fastkv-eval ruler");
  EXPECT_EQ(found["complete"], true);
  ASSERT_EQ(found["examples"].size(), 20u);
  for (std::size_t i = 0; i < 20; ++i) {
    const OrderedJson& example = found["examples"][i];
    EXPECT_EQ(example["key"], file.string() + ": line " + std::to_string(i + 1) + "/fastkv");
    EXPECT_EQ(example["task"], "niah_multikey_3");
    EXPECT_EQ(example["index"], i);
    EXPECT_TRUE(example["length"].is_null());
    EXPECT_GT(example["prompt_tokens"], 3000);
    EXPECT_LE(example["generated"], 128);
    EXPECT_EQ(example["score"], 0) << "a model of fairy tales cannot know";
  }
  ASSERT_EQ(found["scores"].size(), 1u);
  EXPECT_EQ(found["scores"][0]["n"], 20);
}

TEST_F(Ruler, TheScoreIsTheShareOfReferencesInTheAnswer) {
  // the tale that this model tells: references are words of it and one that is not
  const std::string input = "Once upon a time, there was a little girl named Lily. She loved to play";
  const auto answer_of = [&](const std::string& name, const std::string& outputs) {
    const std::string file = scratch_.write(name, "{\"input\": \"" + input + "\", \"outputs\": " + outputs + "}\n");
    return result({"--data", file, "--method", "full"})["examples"][0];
  };
  const std::string told = answer_of("vt.jsonl", "[\"zebra\"]")["answer"];
  ASSERT_GE(told.size(), 20u) << told;
  const std::string outputs = Json({told.substr(0, 8), told.substr(9, 8), "zebra", "walrus"}).dump();
  EXPECT_EQ(answer_of("vt.jsonl", outputs)["score"], 0.5);
  EXPECT_EQ(answer_of("qa_1.jsonl", outputs)["score"], 1) << "one is enough";
  EXPECT_EQ(answer_of("qa_1.jsonl", "[\"zebra\"]")["score"], 0);
}

TEST_F(Ruler, GeneratedQuestionsAreTheWrittenOnes) {
  const std::vector<std::string> questions = {"--tasks",   "niah_single_2,vt", "--lengths",
                                              "1500,2000", "--samples",        "2"};
  std::vector<std::string> arguments = questions;
  arguments.insert(arguments.end(), {"--method", "full"});
  const OrderedJson generated = result(arguments);
  arguments = questions;
  arguments.insert(arguments.end(), {"--write", scratch_ / "data"});
  const Outcome written = run(arguments);
  ASSERT_EQ(written.status, 0) << written.err;
  EXPECT_EQ(written.out, "");
  const OrderedJson read = result({"--data", scratch_ / "data", "--method", "full"});
  ASSERT_EQ(generated["examples"].size(), 8u);
  ASSERT_EQ(read["examples"].size(), 8u);
  for (std::size_t i = 0; i < 8; ++i) {
    for (const char* field : {"task", "length", "index", "prompt_tokens", "answer", "score"})
      EXPECT_EQ(read["examples"][i][field], generated["examples"][i][field]) << i << " " << field;
    const int room = generated["examples"][i]["task"] == "vt" ? 30 : 128;
    const int free =
        generated["examples"][i]["length"].get<int>() - generated["examples"][i]["prompt_tokens"].get<int>();
    EXPECT_GE(free, room);
    EXPECT_LT(free, room + 200) << "five sentences in pieces of one letter or two";
  }
  EXPECT_EQ(generated["examples"][0]["key"], "niah_single_2/1500/0/full");
  EXPECT_EQ(generated["settings"]["seed"], 1);
}

TEST_F(Ruler, TheTableHasAColumnAMethod) {
  const Outcome outcome = run({"--tasks", "fwe,vt", "--lengths", "1500", "--samples", "2", "--method", "full,snapkv"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out.substr(0, outcome.out.find('\n')), "task           length  n       full     snapkv");
  EXPECT_NE(outcome.out.find("mean of tasks    1500"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("compare methods, not published results.\n"), std::string::npos);
}

TEST_F(Ruler, Refusals) {
  EXPECT_NE(refusal({"--tasks", "vt,niah"}, 2).find("--tasks vt,niah: expected niah_single_1, "), std::string::npos);
  EXPECT_EQ(refusal({"--tasks", "vt,vt"}, 2), "fastkv-eval: --tasks vt,vt: vt is named twice\n");
  EXPECT_EQ(refusal({"--tasks", "qa_1"}, 2), "fastkv-eval: --tasks qa_1: is not generated, only read with --data\n");
  EXPECT_EQ(refusal({"--data", "x", "--samples", "3"}, 2), "fastkv-eval: --samples has no effect with --data\n");
  EXPECT_EQ(refusal({"--limit", "3"}, 2), "fastkv-eval: --limit has no effect without --data\n");
  EXPECT_EQ(refusal({"--write", "x", "-o", "y"}, 2), "fastkv-eval: --output has no effect with --write\n");
  EXPECT_EQ(refusal({"--lengths", "2000,2000"}, 2), "fastkv-eval: --lengths 2000,2000: 2000 is named twice\n");
  const std::string small = refusal({"--tasks", "vt", "--lengths", "200"}, 2);
  EXPECT_EQ(small.find("fastkv-eval: --lengths 200: the shortest question of vt takes "), 0u) << small;
  EXPECT_EQ(refusal({"--tasks", "vt", "--lengths", "20000", "--samples", "1"}, 1)
                .find("fastkv-eval: --lengths 20000: prompt"),
            0u);
  const std::string file = scratch_.write("vt.jsonl", "{\"input\": \"x\", \"outputs\": [\"a\"]}\n{}\n");
  EXPECT_EQ(refusal({"--data", file}, 1), "fastkv-eval: " + file + ": line 2: no field \"input\"\n");
  EXPECT_EQ(refusal({"--data", file, "--data", file, "--limit", "1"}, 2),
            "fastkv-eval: --data " + file + ": is read twice\n");
  EXPECT_EQ(refusal({"--data", file, "--tasks", "cwe"}, 2), "fastkv-eval: --tasks: no file of these tasks\n");
}

}  // namespace
}  // namespace fastkv::test
