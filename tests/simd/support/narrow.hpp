// Half, bfloat16 and their rounding, written slowly from their definitions.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace fastkv::test {

inline double half_value(std::uint16_t h) {
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  const double sign = h >> 15 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

/// Nearest half, ties to even, at most ±65504.
inline std::uint16_t to_half(double x) {
  if (std::isnan(x)) return 0x7e00;
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double a = std::abs(x);
  if (a >= 65504) return sign | 0x7bff;
  const int exponent = a < 0x1p-14 ? -14 : std::ilogb(a);
  const double units = std::nearbyint(std::ldexp(a, 10 - exponent));  // 1024 … 2048 of a normal's last place
  return std::uint16_t(sign + ((exponent + 14) << 10) + int(units));
}

inline float bf16_value(std::uint16_t b) {
  const std::uint32_t bits = std::uint32_t(b) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

/// Nearest bfloat16, ties to even, by comparing the two neighbours; NaN stays NaN.
inline std::uint16_t to_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const std::uint16_t below = std::uint16_t(bits >> 16);  // towards zero
  if (std::isnan(x)) return below | 0x40;
  const std::uint32_t rest = bits & 0xffff;
  if (rest > 0x8000 || (rest == 0x8000 && (below & 1))) return below + 1;
  return below;
}

}  // namespace fastkv::test
