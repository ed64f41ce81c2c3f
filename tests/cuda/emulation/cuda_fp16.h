// Emulation of CUDA's float16: storage and conversions, rounded to nearest even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "vector_types.h"

/// Arithmetic is left out on purpose: kernels compute in float32.
struct __half {
  std::uint16_t bits;
  __half() = default;
  __half(float x)
      : bits(std::isnan(x) ? std::uint16_t(0x7fff) : std::bit_cast<std::uint16_t>(static_cast<_Float16>(x))) {}
  operator float() const {  // g++ calls a function for _Float16, which was most of the time of emulated products
    const std::uint32_t magnitude = (bits & 0x7fffu) << 13, sign = (bits & 0x8000u) << 16;
    const bool finite = magnitude < 0x7c00u << 13;
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;  // exponents begin at 2^-14 instead of 2^-126
    return std::bit_cast<float>((finite ? std::bit_cast<std::uint32_t>(scaled) : magnitude | 0x7f800000u) | sign);
  }
};
struct alignas(4) __half2 {
  __half x, y;
};
using half = __half;
using half2 = __half2;
__half operator+(__half, __half) = delete;
__half operator-(__half, __half) = delete;
__half operator*(__half, __half) = delete;
__half operator/(__half, __half) = delete;

inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float __half2float(__half x) { return float(x); }
inline __half __ushort_as_half(unsigned short bits) {
  __half out;
  out.bits = bits;
  return out;
}
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 x) { return {__half(x.x), __half(x.y)}; }
inline float2 __half22float2(__half2 x) { return {float(x.x), float(x.y)}; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline float __low2float(__half2 x) { return float(x.x); }
inline float __high2float(__half2 x) { return float(x.y); }
