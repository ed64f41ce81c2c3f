// What options with lists do.
#include <gtest/gtest.h>

#include "bench/modes.hpp"
#include "common/cli.hpp"

namespace fastkv::bench {
namespace {

using Counts = std::vector<std::int64_t>;

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
