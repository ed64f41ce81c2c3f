// The best token of a vocabulary, whole and in pieces.
#include "core/arg_max.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
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
    const auto front = std::pair(all.first(cut), 0), back = std::pair(all.subspan(cut), std::int32_t(cut));
    for (const auto& [first, second] : {std::pair(front, back), std::pair(back, front)}) {
      BestLogit together, one, other;  // one after the other, and both apart
      together.take(first.first, first.second);
      together.take(second.first, second.second);
      one.take(first.first, first.second);
      other.take(second.first, second.second);
      one.take(other);
      for (const BestLogit& best : {together, one}) {
        EXPECT_EQ(best.token, 1200) << cut;
        EXPECT_EQ(best.logit, 3.0f);
        EXPECT_EQ(best.invalid, -1);
      }
    }
  }
}

TEST(ArgMax, FindsWhatIsNotALogit) {
  for (const float bad : {NAN, INFINITY}) {
    for (const std::size_t at : {0u, 16u, 1500u, 1999u}) {
      std::vector<float> logits = logits_of(2000);
      EXPECT_NO_THROW(check_logits(logits));
      logits[at] = logits.back() = bad;
      BestLogit whole, back, front;
      whole.take(logits, 0);
      const std::size_t cut = 1000;
      back.take(std::span(logits).subspan(cut), std::int32_t(cut));
      front.take(std::span(logits).first(cut), 0);
      back.take(front);
      for (const BestLogit& best : {whole, back}) EXPECT_EQ(best.invalid, std::int32_t(at));
      EXPECT_THROW(whole.check_valid(), Error);
      try {
        check_logits(logits);
        ADD_FAILURE() << "no error for " << at;
      } catch (const Error& error) {
        EXPECT_EQ(error.what(), "the logit of token " + std::to_string(at) + (std::isnan(bad) ? " is nan" : " is inf"));
      }
    }
  }
  const std::vector<float> none(40, -INFINITY);
  BestLogit best;
  best.take(none, 0);
  EXPECT_EQ(best.token, -1);
  EXPECT_THROW(arg_max(none), Error);
}

}  // namespace
}  // namespace fastkv
