// Lists and ranges as llama-bench takes them, and what options with lists do.
#include "bench/lists.hpp"

#include <gtest/gtest.h>

#include "bench/modes.hpp"
#include "common/cli.hpp"

namespace fastkv::bench {
namespace {

using Counts = std::vector<std::int64_t>;

std::string refusal(const std::string& text, std::int64_t least = 0) {
  try {
    parse_counts(text, least);
  } catch (const tools::UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Lists, NumbersAndRanges) {
  EXPECT_EQ(parse_counts("512"), Counts({512}));
  EXPECT_EQ(parse_counts("512,1024,0"), Counts({512, 1024, 0}));
  EXPECT_EQ(parse_counts("1-4"), Counts({1, 2, 3, 4}));
  EXPECT_EQ(parse_counts("128-1024*2"), Counts({128, 256, 512, 1024}));
  EXPECT_EQ(parse_counts("128-600+128"), Counts({128, 256, 384, 512}));
  EXPECT_EQ(parse_counts("7-7"), Counts({7}));
  EXPECT_EQ(parse_counts("16,32-64+16,1-9*3"), Counts({16, 32, 48, 64, 1, 3, 9}));
}

TEST(Lists, WhatIsWrong) {
  EXPECT_EQ(refusal(""), "an entry of the list is empty");
  EXPECT_EQ(refusal("1,,2"), "an entry of the list is empty");
  EXPECT_EQ(refusal("a"), "expected an integer");
  EXPECT_EQ(refusal("1.5"), "expected an integer");
  EXPECT_EQ(refusal("-1"), "must be 0 or more");
  EXPECT_EQ(refusal("0", 1), "must be 1 or more");
  EXPECT_EQ(refusal("9-3"), "expected FIRST-LAST with FIRST <= LAST");
  EXPECT_EQ(refusal("1-8*1"), "the range never ends");
  EXPECT_EQ(refusal("0-8*2"), "the range never ends");
  EXPECT_EQ(refusal("1-8+0"), "the range never ends");
  EXPECT_EQ(refusal("1-8+"), "expected an integer");
  EXPECT_EQ(refusal("1-1000000000"), "too many values");
  EXPECT_EQ(parse_pair("512,128"), std::make_pair(std::int64_t{512}, std::int64_t{128}));
  EXPECT_THROW(parse_pair("512"), tools::UsageError);
  EXPECT_THROW(parse_pair("512,0"), tools::UsageError);
}

class Parsed {
 public:
  explicit Parsed(std::vector<std::string> words) : command_("fastkv-bench", "", "") {
    arguments.declare(command_);
    words.insert(words.begin(), "fastkv-bench");
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    command_.parse(static_cast<int>(argv.size()), argv.data());
    arguments.check(command_);
  }
  Arguments arguments;

 private:
  tools::CommandLine command_;
};

std::vector<std::string> names(const Arguments& arguments) {
  std::vector<std::string> all;
  for (const Test& test : tests(arguments)) all.push_back(test.name());
  return all;
}

TEST(BenchArguments, TheDefaultsAreLlamaBenchs) {
  const Parsed parsed({"-m", "x"});
  EXPECT_EQ(names(parsed.arguments), (std::vector<std::string>{"pp512", "tg128"}));
  EXPECT_EQ(parsed.arguments.repetitions, 5);
  EXPECT_EQ(parsed.arguments.warmup, 1);
  const std::vector<RunOptions> runs = run_options(parsed.arguments);
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].method.method, MethodName::full);
}

TEST(BenchArguments, TheFirstListReplacesTheDefaultAndOthersAdd) {
  const Parsed parsed({"-m", "x", "-p", "16,32", "-n", "4", "-pg", "8,4", "-p", "64", "-d", "0,8"});
  EXPECT_EQ(names(parsed.arguments), (std::vector<std::string>{"pp16", "pp32", "pp64", "tg4", "pp8+tg4", "pp16 @ d8",
                                                               "pp32 @ d8", "pp64 @ d8", "tg4 @ d8", "pp8+tg4 @ d8"}));
}

TEST(BenchArguments, ParametersVaryOnlyWithTheMethodThatReadsThem) {
  const Parsed parsed({"-m", "x", "--method", "full,fastkv", "--tsp-rate", "0.2,0.5", "--retention", "0.1,0.3",
                       "--tsp-layer", "3", "-ctk", "f16,q8_0"});
  const std::vector<RunOptions> runs = run_options(parsed.arguments);
  ASSERT_EQ(runs.size(), 2u * (1 + 4));
  EXPECT_EQ(runs[0].method.method, MethodName::full);
  EXPECT_FALSE(runs[0].method.tsp_rate);
  EXPECT_EQ(runs[4].method.tsp_rate, 0.5);
  EXPECT_EQ(runs[4].method.retention, 0.3);
  EXPECT_EQ(runs[4].method.tsp_layer, 3);
  EXPECT_EQ(runs[4].method.min_prompt, 0) << "short prompts are not special";
  EXPECT_EQ(runs[5].cache_k, CacheType::q8_0);
}

TEST(BenchArguments, TheSuiteHasItsOwnDefaults) {
  const Parsed parsed({"-m", "x", "--suite", "fastkv"});
  EXPECT_EQ(parsed.arguments.n_prompt, Counts({8192, 32768, 131072}));
  EXPECT_EQ(parsed.arguments.n_gen, Counts({256}));
  EXPECT_EQ(run_options(parsed.arguments).size(), 2u);
  const Parsed small({"-m", "x", "--suite", "fastkv", "-p", "64", "-n", "3", "-r", "1"});
  EXPECT_EQ(small.arguments.n_prompt, Counts({64}));
  EXPECT_EQ(small.arguments.repetitions, 1);
}

}  // namespace
}  // namespace fastkv::bench
