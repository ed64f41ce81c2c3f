// The small parts that tools share: UTF-8 streaming, stop strings, tables, numbers, CPU lists, escapes.
#include <gtest/gtest.h>

#include <random>

#include "common/format.hpp"
#include "common/options.hpp"
#include "common/output.hpp"
#include "common/summary.hpp"
#include "common/table.hpp"

namespace fastkv::tools {
namespace {

TEST(Utf8Stream, WholeCharactersOnly) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xE2\x82"), "a");
  EXPECT_EQ(stream.push("\xAC"), "\xE2\x82\xAC");
  EXPECT_EQ(stream.push("\xF0\x9F"), "");
  EXPECT_EQ(stream.push("\x98\x80!"), "\xF0\x9F\x98\x80!");
  EXPECT_EQ(stream.push("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD") << "overlong";
  EXPECT_EQ(stream.push("\xED\xA0"), "\xEF\xBF\xBD\xEF\xBF\xBD") << "surrogate";
  EXPECT_EQ(stream.push("\xE2("), "\xEF\xBF\xBD(");
  EXPECT_EQ(stream.push(std::string("\0z", 2)), std::string("\0z", 2));
}

TEST(Utf8Stream, AnyCutGivesTheSameText) {
  const std::string text = "na\xC3\xAFve \xE2\x82\xAC\xF0\x9F\x98\x80 \xE4\xB8\xAD\xE6\x96\x87 end";
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    Utf8Stream stream;
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = 1 + random() % 4;
      out += stream.push(std::string_view(text).substr(at, n));
      at += n;
    }
    ASSERT_EQ(out, text);
  }
}

TEST(StopFilter, DropsTheStopStringWhereverItIsCut) {
  const std::string text = "one two END three";
  for (std::size_t step = 1; step < text.size(); ++step) {
    StopFilter filter({"END", "two END", "zzz"});
    std::string out;
    for (std::size_t at = 0; at < text.size() && !filter.stopped(); at += step)
      out += filter.push(text.substr(at, step));
    EXPECT_TRUE(filter.stopped());
    EXPECT_EQ(out, "one ") << "pieces of " << step;
    EXPECT_EQ(filter.finish(), "");
  }
  StopFilter partial({"END"});
  EXPECT_EQ(partial.push("the EN"), "the ");
  EXPECT_EQ(partial.finish(), "EN");
  StopFilter none({});
  EXPECT_EQ(none.push("text"), "text");
}

TEST(Format, BytesAndDurations) {
  EXPECT_EQ(format_bytes(17), "17 B");
  EXPECT_EQ(format_bytes(12 << 10), "12.0 KiB");
  EXPECT_EQ(format_bytes(98362432), "93.8 MiB");
  EXPECT_EQ(format_bytes(std::size_t{16} << 30), "16.00 GiB");
  EXPECT_EQ(format_duration(42.4), "42s");
  EXPECT_EQ(format_duration(192), "3m12s");
  EXPECT_EQ(format_duration(7500), "2h05m");
}

TEST(Table, Columns) {
  Table table({"method", "TTFT"});
  table.row({"full", "12.50 s"});
  table.row({"fastkv", "3.20 s"});
  EXPECT_EQ(table.text(), "method     TTFT\n------  -------\nfull    12.50 s\nfastkv   3.20 s\n");
  Table characters({"score", "n"});
  characters.row({"1 ± 2", "10"});
  EXPECT_EQ(characters.text(), "score   n\n-----  --\n1 ± 2  10\n") << "as wide as its characters, not its bytes";
}

TEST(Nodes, OneLineEach) {
  RunPlan plan;
  EXPECT_TRUE(describe_nodes(plan).empty());
  plan.nodes = {{0, "0-3", 4, 4, 0, 4, 512 << 20, 64 << 20, 3 << 20}, {2, "8", 1, 2, 0, 0, 1 << 20, 0, 0}};
  EXPECT_EQ(describe_nodes(plan),
            (std::vector<std::string>{
                "node 0: 4 threads on CPUs 0-3, 512.0 MiB weights, 64.0 MiB cache (heads 0-3), 3.0 MiB working memory",
                "node 2: 1 thread (prompt 2) on CPUs 8, 1.0 MiB weights, 0 B cache (no heads), 0 B working memory"}));
}

TEST(CpuLists, MasksAndRanges) {
  EXPECT_EQ(parse_cpu_mask("0x5"), (std::vector<int>{0, 2}));
  EXPECT_EQ(parse_cpu_mask("F0"), (std::vector<int>{4, 5, 6, 7}));
  EXPECT_EQ(parse_cpu_range("2-4"), (std::vector<int>{2, 3, 4}));
  EXPECT_EQ(parse_cpu_range("3"), (std::vector<int>{3}));
  for (const char* bad : {"", "0x", "0", "g"}) EXPECT_THROW(parse_cpu_mask(bad), UsageError) << bad;
  for (const char* bad : {"", "-1", "4-2", "1-", "a-b", "0-99999999"})
    EXPECT_THROW(parse_cpu_range(bad), UsageError) << bad;
}

MethodOptions method_options(std::vector<const char*> arguments) {
  CommandLine command("program", "", "");
  MethodFlags flags;
  flags.declare(command);
  arguments.insert(arguments.begin(), "program");
  EXPECT_FALSE(command.parse(static_cast<int>(arguments.size()), arguments.data()));
  return flags.resolve(command);
}

TEST(Preset, StandsForItsValues) {
  const MethodOptions paper = method_options({"--preset", "paper"});
  EXPECT_EQ(paper.retention, 0.1);
  EXPECT_EQ(paper.tsp_rate, 0.2);
  EXPECT_EQ(paper.window, 8);
  EXPECT_EQ(paper.kernel, 7);
  EXPECT_EQ(paper.pooling, Pooling::max);
  EXPECT_FALSE(paper.tsp_window || paper.tsp_shift || paper.group_reduce);
  const MethodOptions accurate = method_options({"--preset", "accurate"});
  EXPECT_EQ(accurate.retention, 0.1);
  EXPECT_EQ(accurate.tsp_rate, 0.2);
  EXPECT_EQ(accurate.window, 8);
  EXPECT_EQ(accurate.kernel, 15);
  EXPECT_EQ(accurate.pooling, Pooling::max);
  EXPECT_EQ(accurate.tsp_window, 32);
  EXPECT_EQ(accurate.tsp_shift, 4);
  EXPECT_EQ(accurate.group_reduce, GroupReduce::max);
  EXPECT_FALSE(method_options({}).retention);
}

TEST(Preset, SingleFlagsOverrideIt) {
  const MethodOptions options =
      method_options({"--kernel", "5", "--kv-budget", "300", "--tsp-tokens", "500", "--preset", "accurate"});
  EXPECT_EQ(options.kernel, 5);
  EXPECT_EQ(options.tsp_shift, 2) << "half of the kernel at most";
  EXPECT_EQ(options.kv_budget, 300);
  EXPECT_FALSE(options.retention);
  EXPECT_FALSE(options.tsp_rate);
  EXPECT_EQ(options.tsp_window, 32);
}

}  // namespace
}  // namespace fastkv::tools
