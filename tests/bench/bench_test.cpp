// The program: tables and JSON as llama-bench's, the modes on a tiny model, errors, Ctrl-C. Fails on nonsense (zero,
// NaN, a share above 105 %), never on time.
#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <sstream>

#include "core/json.hpp"
#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

class Bench : public ::testing::Test {
 protected:
  void SetUp() override { FASTKV_REQUIRE_FILE(model_); }
  Outcome run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"-m", model_});
    return run_program("fastkv-bench", arguments);
  }
  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
};

void expect_share(const Json& share) {
  if (share.is_null()) return;
  ASSERT_TRUE(share.is_number()) << share;
  EXPECT_GT(share.get<double>(), 0);
  EXPECT_LE(share.get<double>(), 1.05);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST_F(Bench, TheTableIsLlamaBenchs) {
  const Outcome outcome = run({"-p", "64", "-n", "4", "-pg", "16,2", "-r", "2", "-t", "1"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 2u + 3 + 2) << outcome.out;
  EXPECT_EQ(lines[0].find("| model                          |       size |     params | backend    | threads |"), 0u);
  EXPECT_NE(lines[0].find("|            test |                  t/s |"), std::string::npos);
  EXPECT_EQ(lines[1].find("| ------------------------------ | ---------: | ---------: | ---------- | ------: |"), 0u);
  const std::regex row(
      R"(\| llama 0M F32 +\| +[0-9.]+ MiB \| +0\.[0-9]+ M \| CPU +\| +1 \| +(pp64|tg4|pp16\+tg2) \| +[0-9.]+ ± [0-9.]+ \| +[0-9.]+ \| .*\|)",
      std::regex::icase);
  for (int i = 2; i < 5; ++i) EXPECT_TRUE(std::regex_match(lines[std::size_t(i)], row)) << lines[std::size_t(i)];
  EXPECT_EQ(lines[6].find("build: "), 0u);
}

TEST_F(Bench, JsonHasLlamaBenchsFieldsAndOurs) {
  const Outcome outcome =
      run({"-p", "1024", "-n", "4", "-d", "0,32", "-r", "3", "-o", "json", "-oe", "jsonl", "--method", "full,fastkv"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json results = Json::parse(outcome.out);
  ASSERT_EQ(results.size(), 8u);
  EXPECT_EQ(lines_of(outcome.err).size(), 8u);
  for (const Json& r : results) {
    for (const char* field :
         {"build_commit", "build_number", "cpu_info",       "gpu_info",     "backends",   "model_filename",
          "model_type",   "model_size",   "model_n_params", "n_batch",      "n_ubatch",   "n_threads",
          "cpu_mask",     "type_k",       "type_v",         "n_gpu_layers", "flash_attn", "load_mode",
          "n_prompt",     "n_gen",        "n_depth",        "test_time",    "avg_ns",     "stddev_ns",
          "avg_ts",       "stddev_ts",    "samples_ns",     "samples_ts",   "method",     "tsp_layer",
          "tsp_rate",     "retention",    "ttft_ms",        "tpot_ms",      "kv_bytes",   "peak_rss_bytes",
          "isa",          "compute",      "numa",           "share_of_peak"}) {
      EXPECT_TRUE(r.contains(field)) << field;
    }
    EXPECT_EQ(r["model_filename"], model_);
    ASSERT_EQ(r["samples_ns"].size(), 3u);
    ASSERT_EQ(r["samples_ts"].size(), 3u);
    const double tokens = r["n_prompt"].get<double>() + r["n_gen"].get<double>();
    for (int i = 0; i < 3; ++i) {
      EXPECT_GT(r["samples_ns"][i], 0);
      EXPECT_NEAR(r["samples_ts"][i].get<double>() * r["samples_ns"][i].get<double>() / (1e9 * tokens), 1, 1e-3);
    }
    EXPECT_GT(r["ttft_ms"], 0);
    EXPECT_EQ(r["tpot_ms"].is_null(), r["n_gen"] == 0);
    EXPECT_GT(r["kv_bytes"], 0);
    EXPECT_GT(r["peak_rss_bytes"], 0);
    EXPECT_EQ(r["method"] == "full", r["tsp_layer"].is_null());
    expect_share(r["share_of_peak"]);
  }
  EXPECT_EQ(results[0]["method"], "full");
  EXPECT_EQ(results[5]["method"], "fastkv") << "one token runs under fastkv too";
  EXPECT_EQ(results[4]["method"], "fastkv");
  EXPECT_LT(results[4]["kv_bytes"], results[0]["kv_bytes"]);
}

TEST_F(Bench, CsvHasOneHeader) {
  const Outcome outcome = run({"-p", "8", "-n", "2", "-r", "1", "--no-warmup", "-o", "csv"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].find("build_commit,build_number,cpu_info,gpu_info,backends,model_filename,"), 0u);
  EXPECT_EQ(lines[0].find("samples"), std::string::npos);
  EXPECT_EQ(std::count(lines[0].begin(), lines[0].end(), ',') + 1,
            static_cast<std::ptrdiff_t>(std::count(lines[1].begin(), lines[1].end(), '"') / 2));
}

TEST_F(Bench, ProgressNamesEveryRun) {
  const Outcome outcome = run({"-p", "8", "-n", "0", "-r", "2", "--progress"});
  EXPECT_EQ(lines_of(outcome.err),
            (std::vector<std::string>{"fastkv-bench: benchmark 1/1: pp8: prompt run (warm-up 1/1)",
                                      "fastkv-bench: benchmark 1/1: pp8: prompt run 1/2",
                                      "fastkv-bench: benchmark 1/1: pp8: prompt run 2/2"}));
}

TEST_F(Bench, SweepBenchsTable) {
  const Outcome outcome = run({"--sweep", "-p", "2048", "-n", "2", "-c", "4096", "-r", "3"});
  if (outcome.status != 0) GTEST_FAIL() << outcome.err;
  EXPECT_NE(outcome.out.find("|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"),
            std::string::npos);
  EXPECT_NE(outcome.out.find("\n|  2048 |      2 |      0 |"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("\n|  2048 |      2 |   2048 |"), std::string::npos) << outcome.out;
  const Outcome json = run({"--sweep", "-p", "2048", "-n", "2", "-c", "4096", "-r", "3", "-o", "jsonl"});
  ASSERT_EQ(lines_of(json.out).size(), 2u);
  const Json row = Json::parse(lines_of(json.out)[0]);
  for (const char* field :
       {"n_kv_max", "n_batch", "n_ubatch", "pp", "tg", "n_kv", "t_pp", "speed_pp", "t_tg", "speed_tg"}) {
    EXPECT_TRUE(row.contains(field)) << field;
  }
  EXPECT_GT(row["speed_tg"], 0);
}

TEST_F(Bench, EdgesCompareALengthWithTheNext) {
  const Outcome table = run({"--edges", "-p", "16,48", "-r", "1", "--method", "full,fastkv"});
  ASSERT_EQ(table.status, 0) << table.err;
  // title, header; lengths of both methods; windows, budgets and propagated tokens of fastkv
  EXPECT_EQ(lines_of(table.out).size(), 4u + 2 * 2 + 4 + 2 + 2) << table.out;
  const Outcome lines = run({"--edges", "-p", "48", "-r", "2", "--method", "snapkv", "-o", "jsonl"});
  ASSERT_EQ(lines_of(lines.out).size(), 1u + 4 + 2) << lines.err;
  const Json window = Json::parse(lines_of(lines.out)[1]);
  EXPECT_EQ(window["edge"], "--window");
  EXPECT_EQ(window["n"], 8);
  EXPECT_GT(window["per_token_ratio"], 0);
  EXPECT_GT(window["at_n_plus_1"]["stages_ms"]["scores"], 0) << "scoring begins at the edge";
  EXPECT_EQ(window["at_n"]["stages_ms"]["scores"], 0);
}

TEST_F(Bench, TheSuiteComparesMethods) {
  const std::vector<std::string> small = {"--suite", "fastkv", "-p", "512,768", "-n", "4", "-r", "1", "--no-warmup"};
  const Outcome table = run(small);
  ASSERT_EQ(table.status, 0) << table.err;
  EXPECT_EQ(lines_of(table.out).size(), 2u + 2 + 4) << table.out;
  EXPECT_EQ(std::regex_replace(table.out, std::regex(R"(x ± )"), "").size() + 4 * 5, table.out.size())
      << "two speed-ups for each length: " << table.out;
  std::vector<std::string> as_json = small;
  as_json.insert(as_json.end(), {"-o", "json"});
  const Json results = Json::parse(run(as_json).out);
  ASSERT_EQ(results.size(), 8u) << "prompt and generation, two lengths, two methods";
  EXPECT_EQ(results[0]["n_prompt"], 512);
  EXPECT_EQ(results[1]["n_gen"], 4);
  EXPECT_EQ(results[1]["n_depth"], 512);
  EXPECT_EQ(results[2]["method"], "fastkv");
  for (const Json& r : results) expect_share(r["share_of_peak"]);
}

TEST_F(Bench, TheBreakdownAddsUp) {
  const Outcome outcome =
      run({"--breakdown", "-p", "512", "-n", "8", "-r", "1", "--method", "fastkv", "-o", "json", "-t", "1"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json result = Json::parse(outcome.out)[0];
  double sum = 0, waiting = 0;
  std::vector<std::string> kinds;
  for (const Json& kind : result["prefill"]) {
    kinds.push_back(kind["layers"]);
    for (const auto& [stage, ms] : kind["stages_ms"].items()) {
      EXPECT_GE(ms, 0) << stage;
      sum += ms.get<double>();
      if (stage == "wait") waiting += ms.get<double>();
    }
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{"before TSP", "TSP layer", "after TSP", "last layer", "ends"}));
  EXPECT_NEAR(sum / result["prefill_ms"].get<double>(), 1, 0.05);
  EXPECT_LT(waiting, sum) << "some stage has work";
  for (const char* stage : {"gemm", "attention", "rest"}) {
    EXPECT_GT(result["decode"]["stages_ms"][stage], 0) << stage;
  }
  double decode = 0;
  for (const auto& [stage, ms] : result["decode"]["stages_ms"].items()) decode += ms.get<double>();
  EXPECT_NEAR(decode / result["decode_ms"].get<double>(), 1, 0.05);
  for (const char* stage : {"gemm", "attention", "scores", "selection", "store", "rest"}) {
    EXPECT_GT(result["prefill"][0]["stages_ms"][stage], 0) << stage;
  }
  const Outcome table = run({"--breakdown", "-p", "64", "-n", "2", "-r", "1"});
  for (const char* word : {"unpack", "gemm", "attention", "scores", "selection", "store", "rest", "wait", "last layer",
                           "embedding, output head", "a generated token"}) {
    EXPECT_NE(table.out.find(word), std::string::npos) << word;
  }
}

TEST_F(Bench, RooflineIsNotNonsense) {
  const Outcome outcome = run_program("fastkv-bench", {"roofline", "--quick", "-r", "3", "-t", "1", "-o", "json", "-m",
                                                       model_, "-p", "256", "-d", "16", "--method", "full,fastkv"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json rows = Json::parse(outcome.out);
  EXPECT_GT(rows.size(), 40u);
  std::vector<std::string> reads;
  for (const Json& row : rows) {
    ASSERT_TRUE(row["median"].is_number()) << row;
    EXPECT_GT(row["median"], 0) << row;
    expect_share(row["share_of_peak"]);
    const std::string name = row["kernel"];
    if (name.rfind("read, ", 0) == 0) reads.push_back(name);
    if (HasNonfatalFailure()) FAIL() << row;
  }
  EXPECT_EQ(reads, (std::vector<std::string>{"read, plain loads", "read, fetching ahead"}));
  EXPECT_EQ(rows[rows.size() - 2]["kernel"], "decode tg32 @ d16");
  EXPECT_EQ(rows.back()["kernel"], "decode fastkv tg32 @ d16");
}

TEST_F(Bench, EveryMethod) {
  Outcome outcome =
      run({"-p", "96", "-n", "2", "-r", "1", "-t", "1", "--method", "all", "--retention", "0.5", "-o", "json"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json results = Json::parse(outcome.out);
  std::vector<std::string> prompts;
  for (const Json& r : results) {
    if (r["n_prompt"] != 96) continue;
    prompts.push_back(r["method"]);
    EXPECT_GT(r["avg_ts"], 0.0);
    EXPECT_GT(r["kv_bytes"], 0.0);
  }
  EXPECT_EQ(prompts, (std::vector<std::string>{"full", "fastkv", "snapkv", "streamingllm", "h2o", "gemfilter",
                                               "pyramidinfer", "pyramidkv", "adakv", "tova"}));
  outcome = run({"-p", "16", "-n", "0", "-r", "1", "--method", "full,headkv"});
  EXPECT_EQ(outcome.status, 2) << "headkv was asked for by name";
  EXPECT_NE(outcome.err.find("--method headkv needs --head-budgets FILE.json"), std::string::npos) << outcome.err;
}

TEST_F(Bench, CtrlCLeavesWellFormedResults) {
  Process process("fastkv-bench", {"-m", model_, "-p", "8", "-n", "0", "-r", "1000000", "-o", "json", "--progress"});
  ASSERT_TRUE(process.wait_until([&] { return process.err().find("prompt run 3/") != std::string::npos; }))
      << process.wait().err;
  process.send(SIGINT);
  const Outcome outcome = process.wait();
  EXPECT_EQ(outcome.status, 130);
  EXPECT_FALSE(outcome.killed);
  EXPECT_EQ(Json::parse(outcome.out), Json::array());
}

TEST(BenchErrors, OneLineAndStatus2) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "no model: -m FILE"},
      {{"-m", "x", "-p", "512-64"}, "--n-prompt 512-64: expected FIRST-LAST with FIRST <= LAST"},
      {{"-m", "x", "-n", "-1"}, "--n-gen -1: must be 0 or more"},
      {{"-m", "x", "-pg", "512"}, "--pg 512: expected PP,TG"},
      {{"-m", "x", "--method", "full,snap"},
       "--method full,snap: expected full, fastkv, snapkv, streamingllm, h2o, gemfilter, pyramidinfer, headkv, "
       "pyramidkv, adakv or tova"},
      {{"-m", "x", "--compute", "int4"}, "--compute int4: expected auto, f32, bf16 or int8"},
      {{"-m", "x", "-ctk", "f16,q4_0"}, "--cache-type-k f16,q4_0: expected f32, f16, bf16 or q8_0"},
      {{"-m", "x", "--tsp-rate", "0.2"}, "--tsp-rate has no effect with --method full"},
      {{"-m", "x", "--method", "fastkv", "--tsp-rate", "0.2,2"}, "--tsp-rate 0.2,2: must be in (0, 1]"},
      {{"-m", "x", "--sweep", "--suite", "fastkv"}, "--sweep, --suite, --breakdown and --edges exclude each other"},
      {{"-m", "x", "--sweep", "-d", "8"}, "--n-depth has no effect with --sweep"},
      {{"-m", "x", "--breakdown", "-n", "8,16"}, "--breakdown takes one --n-gen"},
      {{"-m", "x", "--edges", "-n", "8"}, "--n-gen has no effect with --edges"},
      {{"-m", "x", "--edges", "-p", "8,0"}, "--edges: --n-prompt must be 1 or more"},
      {{"-m", "x", "-c", "8"}, "--ctx-size has no effect without --sweep"},
      {{"-m", "x", "-o", "sql"}, "--output sql: expected md, json, jsonl or csv"},
      {{"-m", "x", "-r", "0"}, "--repetitions 0: must be 1 or more"},
      {{"-m", "x", "-t", "70000"}, "--threads 70000: must be 1 to 65536, or 0 to choose"},
      {{"-m", "x", "-ngl", "9"}, "-ngl is a llama.cpp option that fastkv does not support"},
      {{"roofline", "-t", "0"}, "--threads 0: must be 1 or more"},
      {{"roofline", "-d", "-1"}, "--n-depth -1: must be 0 or more"},
      {{"roofline", "--device", "cuda"}, "--device cuda: this build has no CUDA support; expected cpu"},
      {{"-m", "x", "--device", "cuda"}, "--device cuda: this build has no CUDA support; expected cpu"},
  };
  for (const auto& [arguments, message] : cases) {
    const Outcome outcome = run_program("fastkv-bench", arguments);
    EXPECT_EQ(outcome.status, 2) << message;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, "fastkv-bench: " + message + "\n");
  }
  const Outcome missing = run_program("fastkv-bench", {"-m", "none.gguf"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(missing.err, "fastkv-bench: none.gguf: cannot open: No such file or directory\n");
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"-h"}, {"roofline", "-h"}, {"compare", "-h"}, {"--version"}}) {
    const Outcome help = run_program("fastkv-bench", arguments);
    EXPECT_EQ(help.status, 0);
    EXPECT_EQ(help.err, "");
    for (const std::string& line : lines_of(help.out)) EXPECT_LE(line.size(), 120u) << line;
  }
}

}  // namespace
}  // namespace fastkv::test
