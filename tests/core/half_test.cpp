// float16 and bfloat16 conversions, exhaustively where that is possible.
#include "core/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace fastkv {
namespace {

/// The definition: (-1)^s · 2^(e-15) · 1.m, subnormals 2^-14 · 0.m.
double f16_value(std::uint16_t h) {
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (h & 0x8000) ? -magnitude : magnitude;
}

TEST(Half, EveryF16Decodes) {
  for (unsigned h = 0; h < 65536; ++h) {
    const auto half = std::uint16_t(h);
    const float f = f16_to_f32(half);
    if (((h >> 10) & 31) == 31) {
      EXPECT_EQ(std::isnan(f), (h & 1023) != 0) << h;
      if (!std::isnan(f)) {
        EXPECT_EQ(f, (h & 0x8000) ? -INFINITY : INFINITY);
      }
    } else {
      EXPECT_EQ(f, f16_value(half)) << h;
      EXPECT_EQ(std::signbit(f), (h & 0x8000) != 0) << h;
      EXPECT_EQ(f32_to_f16(f), half) << h;  // and encodes back to itself
    }
  }
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(NAN))));
}

/// Between neighbours: below the middle goes down, above goes up, the middle to the even one.
TEST(Half, F16RoundsToNearestEven) {
  for (unsigned h = 0; h < 0x7bff; ++h) {
    const double low = f16_value(std::uint16_t(h)), high = f16_value(std::uint16_t(h + 1));
    const auto middle = float((low + high) / 2);  // exact
    const auto even = std::uint16_t(h + (h & 1));
    ASSERT_EQ(f32_to_f16(middle), even) << h;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), h) << h;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, INFINITY)), h + 1) << h;
    ASSERT_EQ(f32_to_f16(-middle), even | 0x8000) << h;
  }
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-INFINITY), 0xfc00);
}

TEST(Half, Bf16RoundsToNearestEven) {
  for (unsigned h = 0; h < 0x7f7f; ++h) {
    const float low = bf16_to_f32(std::uint16_t(h)), high = bf16_to_f32(std::uint16_t(h + 1));
    const float middle = low + (high - low) / 2;
    ASSERT_EQ(f32_to_bf16(low), h);
    ASSERT_EQ(f32_to_bf16(middle), h + (h & 1)) << h;
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, 0.0f)), h) << h;
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, INFINITY)), h + 1) << h;
  }
  EXPECT_EQ(f32_to_bf16(INFINITY), 0x7f80);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

}  // namespace
}  // namespace fastkv
