// Lists and ranges of numbers as llama-bench takes them.
#include "common/lists.hpp"

#include <gtest/gtest.h>

#include "common/cli.hpp"

namespace fastkv::tools {
namespace {

using Counts = std::vector<std::int64_t>;

std::string refusal(const std::string& text, std::int64_t least = 0) {
  try {
    parse_counts(text, least);
  } catch (const UsageError& error) {
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
  EXPECT_EQ(parse_distinct_counts("3,1-2"), Counts({3, 1, 2}));
  EXPECT_THROW(parse_distinct_counts("3,1-4"), UsageError);
  EXPECT_EQ(parse_rates("0.1,1"), (std::vector<double>{0.1, 1}));
  for (const char* wrong : {"0.1,0", "1.01", "0.1,,0.2", "x", "nan"}) EXPECT_THROW(parse_rates(wrong), UsageError);
  EXPECT_EQ(parse_pair("512,128"), std::make_pair(std::int64_t{512}, std::int64_t{128}));
  EXPECT_THROW(parse_pair("512"), UsageError);
  EXPECT_THROW(parse_pair("512,0"), UsageError);
}

}  // namespace
}  // namespace fastkv::tools
