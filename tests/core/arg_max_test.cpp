// The best token of a vocabulary, whole and in pieces.
#include "core/arg_max.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "fastkv/error.hpp"

namespace fastkv {
namespace {

/// n logits below 1, different ones.
std::vector<float> logits_of(std::size_t n) {
  std::vector<float> logits;
  for (std::size_t i = 0; i < n; ++i) logits.push_back(-float((i * 7919) % n));
  return logits;
}

TEST(ArgMax, IsTheLowestOfTheLargest) {
  for (const std::size_t n : {1u, 15u, 16u, 17u, 1023u, 1024u, 1025u, 5000u}) {
    for (const std::size_t at : {std::size_t(0), n / 2, n - 1}) {
      std::vector<float> logits = logits_of(n);
      logits[at] = 2;
      EXPECT_EQ(arg_max(logits), std::int32_t(at)) << n;
      logits.back() = 2;
      EXPECT_EQ(arg_max(logits), std::int32_t(at)) << n << ": the lowest of two";
    }
  }
}

TEST(ArgMax, PiecesAgreeWithTheWhole) {
  std::vector<float> logits = logits_of(3000);
  logits[1200] = logits[2900] = 3;
  for (const std::size_t cut : {0u, 1u, 1000u, 1200u, 1201u, 2999u}) {
    const std::span<const float> all(logits);
    const BestLogit front = best_logit(all.first(cut), 0), back = best_logit(all.subspan(cut), std::int32_t(cut));
    for (const auto& [first, second] : {std::pair(front, back), std::pair(back, front)}) {
      BestLogit best = first;
      best.take(second);
      EXPECT_EQ(best.token, 1200) << cut;
      EXPECT_EQ(best.logit, 3.0f);
      EXPECT_TRUE(best.valid);
    }
  }
}

TEST(ArgMax, FindsWhatIsNotALogit) {
  for (const float bad : {NAN, INFINITY}) {
    for (const std::size_t at : {0u, 16u, 1500u, 1999u}) {
      std::vector<float> logits = logits_of(2000);
      EXPECT_NO_THROW(check_logits(logits));
      logits[at] = bad;
      BestLogit best;
      best.take(best_logit(logits, 0));
      EXPECT_FALSE(best.valid) << at;
      EXPECT_THROW(check_logits(logits), Error) << at;
    }
  }
  const std::vector<float> none(40, -INFINITY);
  EXPECT_EQ(best_logit(none, 0).token, -1);
  EXPECT_THROW(arg_max(none), Error);
}

}  // namespace
}  // namespace fastkv
