// fastkv-run as a user sees it: text on stdout and nothing else, the report on stderr, the files it writes.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "fastkv/tokenizer.hpp"
#include "support/fixtures.hpp"
#include "support/head_budgets.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

using Json = nlohmann::json;

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

class Run : public ::testing::Test {
 protected:
  void SetUp() override {
    FASTKV_REQUIRE_FILE(model_);
    FASTKV_REQUIRE_FILE(ids_);
  }

  Outcome run(std::vector<std::string> arguments, const ProcessOptions& options = {}) const {
    arguments.insert(arguments.begin(), {"-m", model_});
    return run_program("fastkv-run", arguments, options);
  }
  /// The reference prompt of 420 tokens; stories260K was trained for 128.
  std::vector<std::string> reference(std::vector<std::string> more) const {
    more.insert(more.begin(), {"--tokens", ids_, "-c", "512", "--temp", "0", "--compute", "f32"});
    return more;
  }

  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
  const std::string ids_ = (fixtures() / "reference" / "stories260K" / "prompt_ids.json").string();
  const Scratch scratch_;
};

TEST_F(Run, StdoutIsTheGeneratedTextAlone) {
  const std::string trace = scratch_ / "t.json";
  const Outcome outcome = run(reference(
      {"-n", "24", "--ignore-eos", "--retention", "0.2", "--tsp-rate", "0.4", "--trace", trace, "--display-prompt"}));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto ids = Json::parse(slurp(trace))["generated"].get<std::vector<std::int32_t>>();
  ASSERT_EQ(ids.size(), 24u);
  const Tokenizer tokenizer = Tokenizer::from_file(model_);
  // what the tokens add to the prompt's text, spaces included
  auto all = Json::parse(slurp(ids_)).get<std::vector<std::int32_t>>();
  const std::string prompt = tokenizer.decode(all);
  all.insert(all.end(), ids.begin(), ids.end());
  EXPECT_EQ(prompt + outcome.out, tokenizer.decode(all));
}

TEST_F(Run, TheSummaryHasTheLinesThatScriptsRead) {
  const Outcome fastkv = run(reference({"-n", "8", "--ignore-eos", "--retention", "0.2", "--tsp-rate", "0.4"}));
  ASSERT_EQ(fastkv.status, 0) << fastkv.err;
  const auto has = [](const Outcome& outcome, const std::string& pattern) {
    EXPECT_TRUE(std::regex_search(outcome.err, std::regex(pattern))) << pattern << "\n" << outcome.err;
  };
  const std::string per = R"( \([ 0-9.]{8} ms per token, [ 0-9.]{8,} tokens per second\)\n)";
  has(fastkv, R"(\nprompt eval time = [ 0-9]{7}\.[0-9]{2} ms /   420 tokens)" + per);
  has(fastkv, R"(\n       eval time = [ 0-9]{7}\.[0-9]{2} ms /     7 runs  )" + per);
  has(fastkv,
      R"(\n          method = fastkv \(tsp layer 1/5, rate 0\.400 = 168 tokens; retention 0\.200 = 84 per head; coverage [01]\.[0-9]{2}\)\n        coverage = by layer( [01]\.[0-9]{2}){5}\n)");
  has(fastkv,
      R"(\n        KV cache = [0-9.]+ KiB f32 \(full: [0-9.]+ KiB, [0-9.]+x smaller\), peak RSS [0-9.]+ MiB\n)");
  has(fastkv, R"(\n            TTFT = [0-9.]+ ms \(tokenize [0-9.]+, prefill [0-9.]+, sample [0-9.]+\)\n$)");
  has(fastkv, R"(\nthreads: )");
  has(fastkv, R"(\nmemory: .* at most, .* available\n)");
  EXPECT_EQ(fastkv.err.find("seed"), std::string::npos) << "nothing random at temperature 0";

  const Outcome budget = run(reference({"-n", "1", "--kv-budget", "64", "--tsp-tokens", "128"}));
  has(budget, R"(method = fastkv \(tsp layer 1/5, 128 tokens; budget 64 per head)");
  const Outcome full = run(reference({"-n", "1", "--method", "full"}));
  has(full, R"(\n          method = full\n        KV cache = [0-9.]+ KiB f32, peak RSS)");
  const Outcome quiet = run(reference({"-n", "1", "--method", "full", "--no-perf", "-lv", "1"}));
  EXPECT_EQ(quiet.err, "");
}

TEST_F(Run, TheTraceFollowsItsSpecification) {
  const std::string trace = scratch_ / "t.json";
  ASSERT_EQ(run(reference({"-n", "2", "--retention", "0.2", "--trace", trace})).status, 0);
  const Json json = Json::parse(slurp(trace));
  for (const char* key : {"method", "n_prompt", "options", "tsp", "layers", "next_position", "first_logits",
                          "generated", "kv_bytes_f16"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["n_prompt"], 420);
  EXPECT_EQ(json["next_position"], 420);
  EXPECT_EQ(json["options"]["tsp_rate"], 0.2);
  EXPECT_EQ(json["first_logits"].size(), 32u);
  EXPECT_EQ(json["layers"].size(), 5u);
  std::size_t rows = 0;
  for (const Json& layer : json["layers"]) {
    for (const Json& head : layer["kept"]) {
      EXPECT_TRUE(std::is_sorted(head.begin(), head.end()));
      rows += head.size();
    }
  }
  EXPECT_EQ(json["kv_bytes_f16"], rows * 8 * 2 * 2) << "head size 8, keys and values, 2 bytes";
}

TEST_F(Run, LogitsOfEveryPosition) {
  const std::string path = scratch_ / "l.npy", trace = scratch_ / "t.json";
  ASSERT_EQ(run(reference({"-n", "1", "--method", "full", "--save-logits", path, "--trace", trace})).status, 0);
  const std::string bytes = slurp(path);
  EXPECT_NE(bytes.find("'shape': (420, 512)"), std::string::npos);
  const std::size_t data = bytes.size() - 420 * 512 * sizeof(float);
  std::vector<float> last(512);
  std::memcpy(last.data(), bytes.data() + data + 419 * 512 * sizeof(float), 512 * sizeof(float));
  const Json json = Json::parse(slurp(trace));
  for (const Json& pair : json["first_logits"]) {
    EXPECT_EQ(last[pair[0].get<std::size_t>()], pair[1].get<float>());
  }
}

TEST_F(Run, CompareIsOneTableAndTheAnswers) {
  const std::string perf = scratch_ / "p.json";
  // --retention is for fastkv; full in the same list takes no notice
  const Outcome outcome = run({"--tokens", ids_, "-c", "512", "-n", "4", "--compare", "full,fastkv", "--retention",
                               "0.3", "--perf-json", perf});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find("method"), 0u) << outcome.out;
  EXPECT_EQ(count(outcome.out, "TTFT"), 1u);
  EXPECT_TRUE(std::regex_search(outcome.out, std::regex(R"(\nfull +[0-9.]+ s +)"))) << outcome.out;
  EXPECT_TRUE(std::regex_search(outcome.out, std::regex(R"(\nfastkv +[0-9.]+ s +)"))) << outcome.out;
  EXPECT_TRUE(std::regex_search(outcome.out, std::regex(R"(\n--- full\n[\s\S]*\n--- fastkv\n)"))) << outcome.out;
  const Json json = Json::parse(slurp(perf));
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["options"]["method"], "full");
  EXPECT_GT(json[0]["cache_bytes"], json[1]["cache_bytes"]);
  EXPECT_GT(json[0]["token_layers"], json[1]["token_layers"]);
  EXPECT_EQ(json[1]["options"]["retention"], 0.3);
  // coverage per layer, and overall their mean; full scores nothing
  double mean = 0;
  for (const Json& layer : json[1]["layer_coverage"]) {
    EXPECT_GT(layer, 0.0);
    EXPECT_LE(layer, 1.0 + 1e-6);
    mean += layer.get<double>() / 5;
  }
  ASSERT_EQ(json[1]["layer_coverage"].size(), 5u);
  EXPECT_NEAR(json[1]["coverage"].get<double>(), mean, 1e-9);
  EXPECT_TRUE(json[0]["layer_coverage"][0].is_null());
}

TEST_F(Run, CompareAllRunsEveryMethod) {
  const std::string perf = scratch_ / "p.json";
  const std::vector<std::string> base = {"--tokens", ids_,           "-c",        "512",         "-n",
                                         "3",        "--ignore-eos", "--compare", "all",         "--retention",
                                         "0.2",      "--min-prompt", "0",         "--perf-json", perf};
  Outcome outcome = run(base);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("note: headkv is left out: it needs --head-budgets FILE\n"), std::string::npos);
  std::vector<std::string> expected = {"full",      "fastkv",       "snapkv",    "streamingllm", "h2o",
                                       "gemfilter", "pyramidinfer", "pyramidkv", "adakv",        "tova"};
  const auto check = [&] {
    const Json json = Json::parse(slurp(perf));
    ASSERT_EQ(json.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(json[i]["options"]["method"], expected[i]);
      EXPECT_TRUE(std::regex_search(outcome.out, std::regex("\n" + expected[i] + " +[0-9.]+ s +"))) << expected[i];
      EXPECT_EQ(count(outcome.out, "\n--- " + expected[i] + "\n"), 1u);
      const bool compresses = i > 0 && expected[i] != "pyramidinfer";  // which keeps what enters a layer
      EXPECT_EQ(json[i]["cache_bytes"].get<double>() <= 0.45 * json[0]["cache_bytes"].get<double>(), compresses)
          << expected[i];
    }
  };
  check();
  EXPECT_EQ(count(outcome.out, "headkv"), 0u);

  std::vector<std::string> with_table = base;
  const HeadBudgets table(5, 8, std::vector<double>(40, 1.0));
  with_table.insert(with_table.end(), {"--head-budgets", table.path()});
  outcome = run(with_table);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.err.find("left out"), std::string::npos);
  expected.insert(expected.begin() + 7, "headkv");
  check();
}

TEST_F(Run, TheTraceOfGemFilterNamesItsTokens) {
  const std::string trace = scratch_ / "t.json";
  ASSERT_EQ(run(reference({"-n", "2", "--method", "gemfilter", "--retention", "0.3", "--trace", trace})).status, 0);
  Json json = Json::parse(slurp(trace));
  ASSERT_EQ(json["selected"].size(), 126u);
  EXPECT_TRUE(std::is_sorted(json["selected"].begin(), json["selected"].end()));
  EXPECT_EQ(json["next_position"], 126);
  EXPECT_EQ(json["n_prompt"], 420);
  EXPECT_TRUE(json["tsp"].is_null());
  EXPECT_EQ(json["options"]["filter_layer"], 1);
  for (const Json& layer : json["layers"]) {
    EXPECT_EQ(layer["tokens_in"], 126);
    EXPECT_TRUE(layer["coverage"].is_null());
    for (const Json& head : layer["kept"]) EXPECT_EQ(head.back(), 125);
  }
  ASSERT_EQ(run(reference({"-n", "2", "--method", "h2o", "--h2o-mask", "reference", "--trace", trace})).status, 0);
  json = Json::parse(slurp(trace));
  EXPECT_FALSE(json.contains("selected"));
  EXPECT_EQ(json["options"]["h2o_mask"], "reference");
  EXPECT_EQ(json["layers"][0]["kept"].size(), 8u) << "query heads";
  EXPECT_GT(json["layers"][0]["coverage"], 0.1);
}

// A preset is for the methods of the list that have what it names: snapkv stores per query head, no group is joined.
TEST_F(Run, PresetsGoWithEveryMethod) {
  const Outcome outcome = run({"--tokens", ids_, "-c", "512", "-n", "1", "--compare", "full,fastkv,snapkv", "--preset",
                               "accurate", "--kernel", "9"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const Outcome alone = run({"--tokens", ids_, "-c", "512", "-n", "1", "--method", "snapkv", "--preset", "accurate"});
  EXPECT_EQ(alone.status, 0) << alone.err;
}

TEST_F(Run, SeveralQuestionsSeveralAnswers) {
  const Outcome outcome =
      run({"-p", "Once upon a time", "-q", "Lily went", "-q", "Tom\\nran", "-n", "6", "--temp", "0"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("question: Lily went\n"), std::string::npos);
  EXPECT_NE(outcome.err.find("question: Tom\nran\n"), std::string::npos);
  EXPECT_EQ(outcome.out.find("question"), std::string::npos);
  const Outcome one = run({"-p", "Once upon a time", "-q", "Lily went", "-n", "6", "--temp", "0"});
  EXPECT_EQ(outcome.out.find(one.out), 0u) << "the first answer does not depend on the second question";
}

TEST_F(Run, TheDocumentArrivesByteForByte) {
  const Tokenizer tokenizer = Tokenizer::from_file(model_);
  const std::string document = "A cat\\n sat.\n";  // a backslash that is no escape
  const auto prompt_tokens = [&](const std::vector<std::string>& arguments, const ProcessOptions& options = {}) {
    std::vector<std::string> all = arguments;
    all.insert(all.end(), {"-n", "0", "--display-prompt"});
    return run(all, options).err;
  };
  EXPECT_NE(prompt_tokens({"-f", scratch_.write("d.txt", document)}).find(document), std::string::npos);
  ProcessOptions input;
  input.input = document;
  const std::string whole = prompt_tokens({"-f", "-", "-p", "And\\tthen?", "-q", "Why?"}, input);
  EXPECT_NE(whole.find("A cat\\n sat.\n\nAnd\tthen?\n\nWhy?"), std::string::npos) << whole;
  EXPECT_NE(prompt_tokens({"-p", "a\\tb", "--no-escape"}).find("a\\tb"), std::string::npos);
}

TEST_F(Run, GenerationStopsBeforeAStopString) {
  const std::vector<std::string> base = {"-p", "Once upon a time", "-n", "24", "--temp", "0"};
  const std::string text = run(base).out;
  ASSERT_GT(text.size(), 20u);
  const std::string stop = text.substr(10, 4);
  std::vector<std::string> stopped = base;
  stopped.insert(stopped.end(), {"-r", stop});
  EXPECT_EQ(run(stopped).out, text.substr(0, text.find(stop)));
}

TEST_F(Run, TheSeedDecides) {
  const std::vector<std::string> base = {"-p", "Once upon a time", "-n", "16", "--temp", "1.5"};
  auto with = [&](const char* seed) {
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), {"--seed", seed});
    return run(arguments);
  };
  EXPECT_EQ(with("7").out, with("7").out);
  EXPECT_NE(with("7").out, with("8").out);
  EXPECT_NE(with("7").err.find("\nseed: 7\n"), std::string::npos);
  EXPECT_TRUE(std::regex_search(run(base).err, std::regex("\nseed: [0-9]+\n")));
}

TEST_F(Run, ShortPromptsRunFullAndSaySo) {
  const Outcome outcome = run({"-p", "Once upon a time", "-n", "1"});
  EXPECT_NE(outcome.err.find("--min-prompt 1024"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("method = full\n"), std::string::npos);
  const Outcome preset = run({"-p", "Once upon a time", "-n", "1", "--preset", "paper"});
  EXPECT_NE(preset.err.find("method = fastkv"), std::string::npos) << preset.err;
}

TEST_F(Run, TheAuthorsSpellingsMeanTheSame) {
  const auto kept = [&](const std::vector<std::string>& flags) {
    const std::string trace = scratch_ / "t.json";
    std::vector<std::string> arguments = reference({"-n", "0", "--trace", trace});
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    EXPECT_EQ(run(arguments).status, 0);
    return Json::parse(slurp(trace))["options"];
  };
  EXPECT_EQ(kept({"--tsp_idx", "2", "--retain_rate", "0.2", "--window_size", "4", "--kernel_size", "5", "--pooling",
                  "avgpool"}),
            kept({"--tsp-layer", "2", "--retention", "0.2", "--window", "4", "--kernel", "5", "--pooling", "avg"}));
  EXPECT_EQ(kept({"--eviction_mode", "constant", "--max_capacity_prompts", "64", "--tsp_len", "100"}),
            kept({"--kv-budget", "64", "--tsp-tokens", "100"}));
  EXPECT_EQ(kept({"--method", "fullkv"}), kept({"--method", "full"}));
}

TEST_F(Run, ADryRunLoadsNothing) {
  const Outcome outcome = run({"--dry-run", "-c", "4096", "-n", "96"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_NE(outcome.err.find("plan: 4000 prompt tokens"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("warning: context 4096"), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.err.find("eval time"), std::string::npos);
}

TEST_F(Run, ProgressAsJson) {
  std::string ids("[1");
  for (int i = 1; i < 6000; ++i) ids += "," + std::to_string(3 + i % 500);
  const Outcome outcome = run({"--tokens", scratch_.write("ids.json", ids + "]"), "-c", "8192", "--method", "full",
                               "-n", "1", "--progress", "json", "-lv", "1"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  std::istringstream lines(outcome.err);
  double last = 0;
  int seen = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line);
    if (json["event"] != "prefill") continue;
    ++seen;
    EXPECT_EQ(json["total"], 6000);
    EXPECT_GE(json["processed"], last);
    EXPECT_TRUE(json.contains("layer") && json.contains("time_ms"));
    last = json["processed"];
  }
  EXPECT_GT(seen, 0);
}

TEST_F(Run, TheEnvironmentIsReadAndTheCommandLineWins) {
  ProcessOptions options;
  options.environment = {{"FASTKV_ARG_METHOD", "full"}, {"FASTKV_ARG_N_PREDICT", "1"}};
  EXPECT_NE(run({"-p", "Once"}, options).err.find("method = full"), std::string::npos);
  options.environment = {{"FASTKV_ARG_RETENTION", "7"}};
  const Outcome bad = run({"-p", "Once"}, options);
  EXPECT_EQ(bad.status, 2);
  EXPECT_EQ(bad.err, "fastkv-run: FASTKV_ARG_RETENTION=7: must be in (0, 1]\n");
}

TEST(RunWithoutModel, HelpAndVersionGoToStdout) {
  for (const char* flag : {"-h", "--help", "--version"}) {
    const Outcome outcome = run_program("fastkv-run", {"-m", "none", flag});
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_NE(outcome.out, "");
  }
  const std::string help = run_program("fastkv-run", {"-h"}).out;
  for (const char* later : {"cuda", "--tsp_idx", "--tsp-idx"}) {
    EXPECT_EQ(help.find(later), std::string::npos) << later;
  }
  for (const char* heading : {"Model and machine:", "Prompt:", "Method:", "Generation:", "Output:"}) {
    EXPECT_NE(help.find(heading), std::string::npos) << heading;
  }
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 120u) << line;
}

}  // namespace
}  // namespace fastkv::test
