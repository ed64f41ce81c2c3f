// The rules of indices against what spec/methods.md says of them, spelled out on small cases.
#include "core/index_rules.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace fastkv::test {
namespace {

TEST(IndexRules, ScoringRowsSeeTheirPast) {
  // 10 keys, the last 4 rows: row a has index 6 + a
  for (int a = 0; a < 4; ++a) EXPECT_EQ(seen_keys(10, 4, -1, a), 7 + a);
  // the authors' H2O mask: only the last 2 rows are causal
  EXPECT_EQ(seen_keys(10, 4, 2, 1), 10);
  EXPECT_EQ(seen_keys(10, 4, 2, 2), 9);
  EXPECT_EQ(seen_keys(10, 4, 2, 3), 10);
}

TEST(IndexRules, WeightsRiseLinearly) {
  EXPECT_EQ(row_weight(1, 5.0, 0), 1.0f);
  EXPECT_EQ(row_weight(3, 2.0, 0), 1.0f);
  EXPECT_EQ(row_weight(3, 2.0, 1), 1.5f);
  EXPECT_EQ(row_weight(3, 2.0, 2), 2.0f);
}

TEST(IndexRules, PooledRangesAreCutAtTheEnds) {
  const auto expect = [](RowRange range, std::int64_t begin, std::int64_t end) {
    EXPECT_EQ(range.begin, begin);
    EXPECT_EQ(range.end, end);
  };
  expect(pooled_range(10, 3, 3, 0), 0, 4);
  expect(pooled_range(10, 3, 3, 3), 0, 7);
  expect(pooled_range(10, 3, 3, 4), 1, 8);
  expect(pooled_range(10, 3, 3, 6), 3, 10);
  expect(pooled_range(10, 3, 3, 9), 6, 10);
  expect(pooled_range(10, 1, 5, 7), 2, 9);  // leans to later tokens: j shares the scores of 5 rows before it
  expect(pooled_range(2, 3, 3, 1), 0, 2);
  expect(pooled_range(5, 0, 0, 2), 2, 3);
}

TEST(IndexRules, ScoresRankFromTheHighestAndTiesFromTheLowestRow) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> falling = {inf, 3e38f, 2.0f, 1.0f, 1e-40f, 0.0f, -1e-40f, -1.0f, -3e38f, -inf, nan};
  for (std::size_t i = 0; i + 1 < falling.size(); ++i)
    EXPECT_LT(score_order(std::bit_cast<std::uint32_t>(falling[i]), 99),
              score_order(std::bit_cast<std::uint32_t>(falling[i + 1]), 0))
        << falling[i] << " before " << falling[i + 1];
  EXPECT_EQ(falling_rank(std::bit_cast<std::uint32_t>(-0.0f)), falling_rank(std::bit_cast<std::uint32_t>(0.0f)));
  EXPECT_EQ(falling_rank(std::bit_cast<std::uint32_t>(-nan)), falling_rank(std::bit_cast<std::uint32_t>(nan)));
  EXPECT_LT(score_order(std::bit_cast<std::uint32_t>(0.5f), 3), score_order(std::bit_cast<std::uint32_t>(0.5f), 4));

  const std::uint64_t seed = 11;
  std::mt19937_64 random(seed);
  for (int i = 0; i < 10000; ++i) {
    const float a = std::bit_cast<float>(std::uint32_t(random())), b = std::bit_cast<float>(std::uint32_t(random()));
    if (std::isnan(a) || std::isnan(b) || a == b) continue;
    EXPECT_EQ(a > b, falling_rank(std::bit_cast<std::uint32_t>(a)) < falling_rank(std::bit_cast<std::uint32_t>(b)))
        << a << " and " << b << ", seed " << seed;
  }
}

TEST(IndexRules, EndsAndCompetingRows) {
  const RowRange free = competing_rows(20, 2, 8);
  EXPECT_EQ(free.begin, 2);
  EXPECT_EQ(free.end, 12);
  std::vector<std::int64_t> rows;
  for (int i = 0; i < 5; ++i) rows.push_back(end_row(20, 2, 3, i));
  EXPECT_EQ(rows, (std::vector<std::int64_t>{0, 1, 17, 18, 19}));
}

TEST(IndexRules, ConsecutiveQueryHeadsShare) {
  for (int h = 0; h < 12; ++h) {
    EXPECT_EQ(shared_head(h, 12, 12), h);
    EXPECT_EQ(shared_head(h, 12, 4), h / 3);
    EXPECT_EQ(shared_head(h, 12, 1), 0);
  }
}

// They compile for constant evaluation, and so for a GPU.
static_assert(seen_keys(10, 4, -1, 3) == 10 && pooled_range(10, 3, 3, 4).end == 8 && falling_rank(0x3f800000u) > 0);

}  // namespace
}  // namespace fastkv::test
