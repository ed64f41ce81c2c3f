// compare's arithmetic with known numbers, and results of llama-bench beside ours.
#include "bench/compare.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "fastkv/error.hpp"
#include "support/process.hpp"

namespace fastkv::bench {
namespace {

using test::Outcome;
using test::run_program;
using test::Scratch;

// Fields and layout as llama-bench writes them; only those that matter here.
const char* const kLlama = R"([
  {
    "build_commit": "0c1e57098",
    "cpu_info": "Some CPU",
    "model_filename": "/models/m.gguf",
    "model_type": "llama 1B Q4_0",
    "n_threads": 2,
    "type_k": "f16",
    "type_v": "f16",
    "n_prompt": 512,
    "n_gen": 0,
    "avg_ts": 200.0,
    "samples_ns": [ 2560000000, 2560000000, 2560000000 ],
    "samples_ts": [ 190.0, 200.0, 210.0 ]
  },
  {
    "build_commit": "0c1e57098",
    "model_filename": "/models/m.gguf",
    "n_threads": 2,
    "type_k": "f16",
    "type_v": "f16",
    "n_prompt": 0,
    "n_gen": 32,
    "n_depth": 8192,
    "samples_ts": [ 10.0 ]
  }
]
)";

std::string ours(const char* method, int n_prompt, int n_gen, int n_depth, const std::string& samples,
                 const char* file = "other/m.gguf") {
  OrderedJson record = {{"build_commit", "abc"}, {"model_filename", file}, {"model_type", "llama 1B Q4_0"},
                        {"n_threads", 2},        {"type_k", "f16"},        {"type_v", "f16"},
                        {"n_prompt", n_prompt},  {"n_gen", n_gen},         {"n_depth", n_depth},
                        {"method", method},      {"compute", "int8"}};
  record["samples_ts"] = OrderedJson::parse(samples);
  return dump(record) + "\n";
}

TEST(Statistics, KnownNumbers) {
  const Spread s = spread({1, 4, 2, 9});
  EXPECT_DOUBLE_EQ(s.mean, 4);
  EXPECT_DOUBLE_EQ(s.median, 3);
  EXPECT_DOUBLE_EQ(s.deviation, std::sqrt(38.0 / 3));  // 9 + 0 + 4 + 25 over n - 1
  EXPECT_EQ(spread({5}).deviation, 0);
  EXPECT_EQ(spread({3, 1, 2}).median, 2);
  const Spread r = ratio(spread({38, 40, 42}), spread({19, 20, 21}));
  EXPECT_DOUBLE_EQ(r.median, 2);
  EXPECT_NEAR(r.deviation, 2 * std::hypot(0.05, 0.05), 1e-12);
}

TEST(Compare, LlamaBenchWithOurs) {
  const Scratch scratch;
  const auto a = read_measurements(scratch.write("llama.json", kLlama));
  ASSERT_EQ(a.size(), 2u);
  // two alternating runs of one test, another method, a test that the other file lacks, another model
  const auto b = read_measurements(scratch.write(
      "ours.jsonl", ours("full", 512, 0, 0, "[400]") + ours("full", 512, 0, 0, "[440]") + "\n" +
                        ours("fastkv", 512, 0, 0, "[600]") + ours("full", 1024, 0, 0, "[1]") +
                        ours("full", 512, 0, 0, "[1]", "n.gguf") + ours("full", 0, 32, 8192, "[15.0, 25.0]")));
  ASSERT_EQ(b.size(), 5u);
  EXPECT_EQ(b[0].samples, (std::vector<double>{400, 440})) << "the runs of one test are put together";
  const std::vector<Comparison> found = compare(a, b);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_DOUBLE_EQ(found[0].ratio.median, 420.0 / 200);
  EXPECT_DOUBLE_EQ(found[1].ratio.median, 3);
  EXPECT_EQ(found[1].b->record["method"], "fastkv");
  EXPECT_DOUBLE_EQ(found[2].ratio.median, 2);
}

TEST(Compare, TheSameMethodIsPreferred) {
  const Scratch scratch;
  const auto a = read_measurements(scratch.write("a", ours("full", 8, 0, 0, "[10]") + ours("fastkv", 8, 0, 0, "[20]")));
  const auto b = read_measurements(scratch.write("b", ours("fastkv", 8, 0, 0, "[30]") + ours("full", 8, 0, 0, "[40]")));
  const std::vector<Comparison> found = compare(a, b);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_DOUBLE_EQ(found[0].ratio.median, 1.5);
  EXPECT_DOUBLE_EQ(found[1].ratio.median, 4);
}

// Threads and cache types differ between devices by nature; on one device they make another test.
TEST(Compare, ACpuWithAGpu) {
  const Scratch scratch;
  const auto on = [](const char* gpu, int threads, const char* cache, const char* samples) {
    OrderedJson record = OrderedJson::parse(ours("fastkv", 512, 0, 0, samples));
    record["gpu_info"] = gpu;
    record["n_threads"] = threads;
    record["type_k"] = record["type_v"] = cache;
    return dump(record) + "\n";
  };
  const auto cpu = read_measurements(scratch.write("cpu", on("", 2, "f16", "[10]")));
  const auto gpu =
      read_measurements(scratch.write("gpu", on("H100", 1, "bf16", "[800]") + on("A100", 1, "bf16", "[400]")));
  ASSERT_EQ(gpu.size(), 2u) << "two GPUs are two results";
  const std::vector<Comparison> found = compare(cpu, gpu);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_DOUBLE_EQ(found[0].ratio.median, 80);
  EXPECT_DOUBLE_EQ(found[1].ratio.median, 40);
  EXPECT_TRUE(compare(cpu, read_measurements(scratch.write("b", on("", 4, "f16", "[10]")))).empty());
  const Outcome table = run_program("fastkv-bench", {"compare", scratch.write("cpu.jsonl", on("", 2, "f16", "[10]")),
                                                     scratch.write("gpu.jsonl", on("H100", 1, "bf16", "[800]"))});
  EXPECT_NE(table.out.find("80.000x"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("on H100"), std::string::npos) << table.out;
}

TEST(Compare, TheProgram) {
  const Scratch scratch;
  const std::string a = scratch.write("llama.json", kLlama),
                    b = scratch.write("ours.json", ours("full", 512, 0, 0, "[410]"));
  const Outcome table = run_program("fastkv-bench", {"compare", a, b});
  EXPECT_EQ(table.status, 0) << table.err;
  EXPECT_NE(table.out.find("2.050x"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("build 0c1e57098"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("pp512"), std::string::npos) << table.out;
  const Outcome lines = run_program("fastkv-bench", {"compare", "-o", "jsonl", a, b, b});
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 2);
  EXPECT_EQ(Json::parse(lines.out.substr(0, lines.out.find('\n')))["ratio"], 2.05);
}

TEST(Compare, WhatIsWrongIsNamed) {
  const Scratch scratch;
  const std::string good = scratch.write("a.json", kLlama);
  const auto refusal = [&](const std::vector<std::string>& arguments, int status) {
    const Outcome outcome = run_program("fastkv-bench", arguments);
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    return outcome.err;
  };
  EXPECT_EQ(refusal({"compare", good}, 2), "fastkv-bench: compare needs two files or more: A.json B.json...\n");
  EXPECT_EQ(refusal({"compare", good, scratch / "none"}, 1),
            "fastkv-bench: cannot open " + scratch / "none" + ": No such file or directory\n");
  const std::string text = scratch.write("text", "hello\n");
  EXPECT_EQ(refusal({"compare", good, text}, 1),
            "fastkv-bench: " + text + ": line 1: expected results as JSON (-o json or -o jsonl)\n");
  for (const char* samples : {"[]", "[1, 0]", "[\"x\"]", "null", "[-3]"}) {
    const std::string bad = scratch.write("bad", ours("full", 512, 0, 0, samples));
    EXPECT_EQ(refusal({"compare", good, bad}, 1),
              "fastkv-bench: " + bad + ": result 1: expected positive numbers in samples_ts\n");
  }
  const std::string empty = scratch.write("empty", "");
  EXPECT_EQ(refusal({"compare", good, empty}, 1),
            "fastkv-bench: " + empty + ": expected results as JSON, found none\n");
  const std::string other = scratch.write("other", ours("full", 1, 0, 0, "[1]"));
  EXPECT_NE(refusal({"compare", good, other}, 1).find("no test of "), std::string::npos);
}

}  // namespace
}  // namespace fastkv::bench
