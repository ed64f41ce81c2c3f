// fastkv-eval nll and tools/make-recall as a user sees them: figures against logits, rows files that are wrong.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "fastkv/tokenizer.hpp"
#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

using Json = nlohmann::json;

class Eval : public ::testing::Test {
 protected:
  void SetUp() override {
    FASTKV_REQUIRE_FILE(model_);
    FASTKV_REQUIRE_FILE(ids_);
  }
  Outcome nll(const std::string& rows, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"nll", "-m",  model_,      "--rows", scratch_.write("rows.jsonl", rows),
                                          "-c",  "512", "--compute", "f32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program("fastkv-eval", arguments);
  }
  Json result(const std::string& rows, std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"-o", scratch_ / "out.json", "--overwrite"});
    const Outcome outcome = nll(rows, more);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.status == 0 ? Json::parse(file_bytes(scratch_ / "out.json")) : Json();
  }
  std::string refusal(const std::string& rows) const {
    const Outcome outcome = nll(rows);
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    const std::string prefix = "fastkv-eval: " + (scratch_ / "rows.jsonl") + ": ";
    const std::size_t at = outcome.err.rfind(prefix);
    EXPECT_NE(at, std::string::npos) << outcome.err;
    return at == std::string::npos ? "" : outcome.err.substr(at + prefix.size());
  }

  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
  const std::string ids_ = (fixtures() / "reference" / "stories260K" / "prompt_ids.json").string();
  const Scratch scratch_;
};

/// float32 [rows, cols] of a NumPy file whose header has 128 bytes.
std::vector<float> read_npy(const std::string& path, std::size_t count) {
  const std::string bytes = file_bytes(path);
  EXPECT_EQ(bytes.size(), 128 + 4 * count);
  std::vector<float> values(count);
  std::memcpy(values.data(), bytes.data() + bytes.size() - 4 * count, 4 * count);
  return values;
}

TEST_F(Eval, FullIsTheLogSoftmaxOfSavedLogits) {
  const auto all = Json::parse(file_bytes(ids_)).get<std::vector<std::int32_t>>();
  constexpr std::size_t kAll = 90, kPrompt = 80, kOpening = 3, kVocabulary = 512;
  const std::vector<std::int32_t> ids(all.begin(), all.begin() + kAll);
  const std::vector<std::int32_t> prompt(ids.begin(), ids.begin() + kPrompt),
      opening(ids.begin() + kPrompt, ids.begin() + kPrompt + kOpening),
      rest(ids.begin() + kPrompt + kOpening, ids.end());
  const Outcome run = run_program(
      "fastkv-run", {"-m", model_, "--tokens", scratch_.write("ids.json", Json(ids).dump()), "-n", "0", "--method",
                     "full", "-c", "512", "--compute", "f32", "--save-logits", scratch_ / "logits.npy"});
  ASSERT_EQ(run.status, 0) << run.err;
  const std::vector<float> logits = read_npy(scratch_ / "logits.npy", kAll * kVocabulary);
  double expected = 0;
  bool greedy = true;
  for (std::size_t t = kPrompt + kOpening; t < kAll; ++t) {
    const float* row = logits.data() + (t - 1) * kVocabulary;
    double sum = 0;
    for (std::size_t v = 0; v < kVocabulary; ++v) sum += std::exp(double(row[v]));
    expected += (std::log(sum) - double(row[ids[t]])) / double(rest.size());
    greedy = greedy && std::max_element(row, row + kVocabulary) - row == ids[t];
  }
  const Json row = {{"prompt", prompt}, {"opening", opening}, {"continuation", rest}};
  const Json whole = {{"prompt", prompt}, {"continuation", std::vector(ids.begin() + kPrompt, ids.end())}};
  const Json found = result(row.dump() + "\n\n" + whole.dump() + "\n", {"--method", "full"});
  const Json& one = found["examples"][0];
  // float32 logits of prefill and of decode: some 1e-6 each
  EXPECT_NEAR(one["nll"].get<double>(), expected, 1e-4);
  EXPECT_EQ(one["greedy_equal"].get<bool>(), greedy);
  EXPECT_EQ(one["continuation_tokens"], rest.size());
  EXPECT_EQ(found["examples"][1]["line"], 3);
  EXPECT_NE(found["examples"][1]["nll"], one["nll"]) << "the opening is not scored";
}

// A budget above the prompt is full attention; a small one diverges from it.
TEST_F(Eval, DivergenceFromFull) {
  const auto ids = Json::parse(file_bytes(ids_)).get<std::vector<std::int32_t>>();
  const Json row = {{"prompt", std::vector(ids.begin(), ids.begin() + 200)},
                    {"continuation", std::vector(ids.begin() + 200, ids.begin() + 220)}};
  const Json same = result(row.dump() + "\n", {"--method", "full,snapkv", "--kv-budget", "300"});
  EXPECT_EQ(same["examples"][1]["kl_to_full"], 0.0);
  EXPECT_EQ(same["scores"][1]["same_best_as_full"]["mean"], 1.0);
  EXPECT_FALSE(same["examples"][0].contains("kl_to_full"));
  const Json far = result(row.dump() + "\n", {"--method", "streamingllm,full", "--kv-budget", "9"});
  const Json& one = far["examples"][0];
  EXPECT_EQ(one["method"], "streamingllm");
  EXPECT_GT(one["kl_to_full"], 0.01);
  EXPECT_LE(one["same_best_as_full"], 1.0);
  const Json alone = result(row.dump() + "\n", {"--method", "snapkv"});
  EXPECT_FALSE(alone["examples"][0].contains("kl_to_full")) << "full was not asked for";
}

TEST_F(Eval, MeansPerTaskAndTheirErrors) {
  std::string rows;
  for (int i = 0; i < 4; ++i) {
    rows += Json{{"prompt", std::string(300, "abcd"[i]) + " Once upon a time"},
                 {"continuation", " there was"},
                 {"task", i < 3 ? "three" : "one"}}
                .dump() +
            "\n";
  }
  const Json found = result(rows, {"--tsp-rate", "0.3", "--limit", "4"});
  ASSERT_EQ(found["examples"].size(), 8u);
  EXPECT_EQ(found["settings"]["methods"]["fastkv"]["tsp_rate"], 0.3);
  EXPECT_TRUE(found["settings"]["methods"].contains("full"));
  EXPECT_TRUE(found["complete"]);
  EXPECT_EQ(found["model"]["layers"], 5);
  ASSERT_EQ(found["scores"].size(), 6u) << "two tasks and all rows under two methods";
  const Json& mean = found["scores"][1];
  EXPECT_EQ(mean["task"], "three");
  EXPECT_EQ(mean["method"], "fastkv");
  EXPECT_EQ(mean["n"], 3);
  double sum = 0, squares = 0, excess = 0;
  for (int i = 0; i < 3; ++i) {
    const Json &full = found["examples"][std::size_t(2 * i)], &fastkv = found["examples"][std::size_t(2 * i + 1)];
    const double nll = fastkv["nll"];
    sum += nll;
    squares += nll * nll;
    excess += nll - full["nll"].get<double>();
    EXPECT_LT(fastkv["coverage"].get<double>(), 1) << "short rows run under the method that was named";
  }
  EXPECT_NEAR(mean["nll"]["mean"].get<double>(), sum / 3, 1e-12);
  EXPECT_NEAR(mean["nll"]["standard_error"].get<double>(), std::sqrt((squares - sum * sum / 3) / 2 / 3), 1e-9);
  EXPECT_NEAR(mean["excess_over_full"]["mean"].get<double>(), excess / 3, 1e-12);
  EXPECT_TRUE(found["scores"][2]["nll"]["standard_error"].is_null()) << "one row has no error";
  EXPECT_EQ(found["scores"][4]["task"], "all rows");
  EXPECT_EQ(found["scores"][4]["n"], 4);
}

TEST_F(Eval, TheTableIsOnStdout) {
  const Outcome outcome = nll("{\"prompt\": \"Once\", \"continuation\": \" upon\"}\n");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out.substr(0, outcome.out.find('\n')),
            "task      method  rows    nll  over full  greedy equal  KL to full  same best");
}

TEST_F(Eval, WrongRowsAreNamedByTheirLine) {
  const std::string good = "{\"prompt\": [1, 5], \"continuation\": [7]}\n";
  EXPECT_EQ(refusal(good + "{\"prompt\": \n"), "line 2: not JSON\n");
  EXPECT_EQ(refusal("[1]\n"), "line 1: expected an object, found array\n");
  EXPECT_EQ(refusal(good + "\n{\"prompt\": \"x\"}\n"), "line 3: no field \"continuation\"\n");
  EXPECT_EQ(refusal("{\"prompt\": 3, \"continuation\": \"x\"}\n"),
            "line 1: \"prompt\": expected a text or an array of token ids, found number\n");
  EXPECT_EQ(refusal("{\"prompt\": \"x\", \"continuation\": \"\"}\n"), "line 1: \"continuation\" is empty\n");
  EXPECT_EQ(refusal("{\"prompt\": [1, -2], \"continuation\": [1]}\n"),
            "line 1: \"prompt\": expected a token id at index 1, found -2\n");
  EXPECT_EQ(refusal("{\"prompt\": \"x\", \"continuation\": \"y\", \"chat\": 1}\n"),
            "line 1: \"chat\": expected true or false, found number\n");
  EXPECT_EQ(refusal("{\"prompt\": \"x\", \"continuation\": \"y\", \"task\": 1}\n"),
            "line 1: \"task\": expected a text, found number\n");
  EXPECT_EQ(refusal(good + Json{{"prompt", std::vector<int>(510, 1)}, {"continuation", {1, 2, 3}}}.dump()),
            "line 2: prompt and continuation are too long (510 and 3 tokens, context 512): raise -c\n");
  EXPECT_EQ(refusal(good + "{\"prompt\": [1, 512], \"continuation\": [7]}\n"),
            "line 2: \"prompt\": token 1: expected an id in 0..511, found 512\n");
  EXPECT_EQ(refusal("\n"), "no rows\n");
}

TEST(EvalErrors, Usage) {
  const auto refusal = [](std::vector<std::string> arguments, int status) {
    const Outcome outcome = run_program("fastkv-eval", arguments);
    EXPECT_EQ(outcome.status, status) << outcome.err;
    return outcome.err;
  };
  EXPECT_EQ(refusal({}, 2).rfind("fastkv-eval: expected a subcommand: ", 0), 0u);
  EXPECT_EQ(refusal({"nll2"}, 2).substr(0, 27), "fastkv-eval: nll2: expected");
  EXPECT_EQ(refusal({"nll"}, 2), "fastkv-eval: no model: -m FILE\n");
  EXPECT_EQ(refusal({"nll", "-m", "x"}, 2), "fastkv-eval: no rows: --rows FILE\n");
  EXPECT_EQ(refusal({"nll", "-m", "x", "--rows", "r", "--method", "full,full"}, 2),
            "fastkv-eval: --method full,full: a method is named twice\n");
  EXPECT_EQ(refusal({"nll", "-m", "x", "--rows", "r", "--limit", "0"}, 2),
            "fastkv-eval: --limit 0: must be 1 or more\n");
}

// ---- tools/make-recall ----------------------------------------------------------------------------------------------

class MakeRecall : public ::testing::Test {
 protected:
  void SetUp() override {
    FASTKV_REQUIRE_FILE(novel_);
    if (std::system("python3 -c '' 2>/dev/null") != 0) GTEST_SKIP() << "missing python3";
  }
  std::string make(const std::string& options) const {
    const std::string out = scratch_ / "rows.jsonl";
    const std::string command =
        std::string(FASTKV_SOURCE_DIR) + "/tools/make-recall " + novel_ + " -o " + out + " " + options;
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return file_bytes(out);
  }

  const std::string novel_ = (fixtures() / "text" / "frankenstein.txt").string();
  const Scratch scratch_;
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST_F(MakeRecall, SeededRowsOfThreeTasks) {
  const std::string rows = make("--rows 5 --seed 7");
  EXPECT_EQ(make("--rows 5 --seed 7"), rows);
  EXPECT_NE(make("--rows 5 --seed 8"), rows);
  const std::string cities = make("--rows 5 --seed 7 --tasks cities");
  EXPECT_NE(rows.find(cities), std::string::npos) << "a task's rows do not depend on the others";

  std::istringstream lines(rows);
  std::string novel, word;
  for (std::istringstream words(file_bytes(novel_)); words >> word;) novel += word + " ";
  int digits = 0, goes_on = 0, two = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json row = Json::parse(line);
    const std::string prompt = row["prompt"], continuation = row["continuation"], task = row["task"];
    const std::string answer = task == "novel" ? "" : continuation.substr(1);
    if (task == "digits") {
      ++digits;
      EXPECT_EQ(answer.size(), 7u);
      EXPECT_EQ(count(prompt, answer), 1u);
      EXPECT_EQ(count(prompt, row["opening"].get<std::string>() + continuation + "."), 1u);
    } else if (task == "cities") {
      ++two;
      EXPECT_EQ(count(prompt, row["opening"].get<std::string>() + continuation + "."), 1u);
      EXPECT_EQ(count(prompt, "keeps a house in the city of "), 2u);
    } else {
      ++goes_on;
      EXPECT_FALSE(row["chat"].get<bool>());
      std::string flat;
      for (std::istringstream words(prompt + continuation); words >> word;) flat += word + " ";
      EXPECT_NE(novel.find(flat.substr(flat.size() - 400)), std::string::npos);
    }
  }
  EXPECT_EQ(digits, 5);
  EXPECT_EQ(two, 5);
  EXPECT_EQ(goes_on, 5);
}

}  // namespace
}  // namespace fastkv::test
