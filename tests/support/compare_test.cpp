// The comparator itself: what must fail fails, what must pass passes, and the message says where.
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Compare, PassesJustInsideAndFailsJustOutside) {
  for (const double expected : {1.0, -1.0, 0.0, 1e30, -1e-30}) {
    const double bound = expected == 0 ? 0.5 : std::abs(expected) / 4;
    for (const double sign : {1.0, -1.0}) {
      EXPECT_TRUE(is_close(expected + sign * bound, expected, bound)) << expected;
      EXPECT_FALSE(is_close(expected + sign * bound * (1 + 1e-12), expected, bound)) << expected;
    }
  }
}

TEST(Compare, ANegativeValueIsNotItsOpposite) {
  EXPECT_FALSE(is_close(-1.0, 1.0, 0.5));
  EXPECT_FALSE(is_close(1.0, -1.0, 0.5));
  EXPECT_FALSE(is_close(-100.0, 1.0, 0.5));  // far below must fail as far above does
}

TEST(Compare, NanNeverPasses) {
  EXPECT_FALSE(is_close(kNan, 1.0, 1e300));
  EXPECT_FALSE(is_close(1.0, kNan, 1e300));
  EXPECT_FALSE(is_close(kNan, kNan, kInf));
  EXPECT_FALSE(is_close(1.0, 1.0, kNan));
}

TEST(Compare, InfinityOnlyEqualsItself) {
  EXPECT_TRUE(is_close(kInf, kInf, 0.0));
  EXPECT_TRUE(is_close(-kInf, -kInf, 0.0));
  EXPECT_FALSE(is_close(kInf, -kInf, kInf));
  EXPECT_FALSE(is_close(kInf, 1.0, kInf));
  EXPECT_FALSE(is_close(1.0, kInf, kInf));
}

TEST(Compare, ZeroBoundMeansEqual) {
  EXPECT_TRUE(is_close(0.0, -0.0, 0.0));
  EXPECT_TRUE(is_close(3.5, 3.5, 0.0));
  EXPECT_FALSE(is_close(0.0, std::numeric_limits<double>::denorm_min(), 0.0));
  EXPECT_FALSE(is_close(1.0, 1.0, -1.0));
}

TEST(Compare, SpansReportTheFirstElementOutside) {
  const std::vector<float> actual = {1, 2, 9, 4, 9};
  const std::vector<double> expected = {1, 2, 3, 4, 5};
  const auto result = close(std::span<const float>(actual), std::span<const double>(expected), 0.5);
  EXPECT_FALSE(result);
  const std::string message = result.message();
  EXPECT_NE(message.find("index 2"), std::string::npos) << message;
  EXPECT_NE(message.find("actual 9"), std::string::npos) << message;
  EXPECT_NE(message.find("expected 3"), std::string::npos) << message;
  EXPECT_NE(message.find("bound 0.5"), std::string::npos) << message;
  EXPECT_NE(message.find("2 of 5"), std::string::npos) << message;
}

TEST(Compare, SpansOfDifferentLengthFail) {
  const std::vector<float> actual = {1, 2};
  const std::vector<float> expected = {1, 2, 3};
  EXPECT_FALSE(close(std::span<const float>(actual), std::span<const float>(expected), 1e9));
}

TEST(Compare, EachElementHasItsOwnBound) {
  const std::vector<float> actual = {1.5f, 2.5f};
  const std::vector<float> expected = {1, 2};
  const std::vector<double> bounds = {1.0, 0.1};
  const auto result =
      close(std::span<const float>(actual), std::span<const float>(expected), std::span<const double>(bounds));
  EXPECT_FALSE(result);
  EXPECT_NE(std::string(result.message()).find("1 of 2"), std::string::npos);
}

}  // namespace
}  // namespace fastkv::test
