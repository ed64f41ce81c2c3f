// Integer dot products of AVX512-VNNI, one instruction each.
#pragma once

#include "simd/kernels/lanes_avx512.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kWideGroup = 256;
inline constexpr bool kPairsIn16Bits = false;

/// As asm: g++ 12 copies accumulators around the intrinsic, which cost a tile 5 % of the peak.
template <bool wide>
FASTKV_INLINE I32 dot_i8(I32 acc, I32 w, I32 a) {
  asm("vpdpbusd %1, %2, %0" : "+v"(acc.v) : "v"(a.v), "v"(w.v));
  return acc;
}
/// g++ 12 would broadcast to a register first: q4_0 came from L2 to a Zen 4 core at 74 GB/s instead of 81.
template <bool wide>
FASTKV_INLINE I32 dot_i8(I32 acc, I32 w, const std::int8_t* a) {
  asm("vpdpbusd %1%{1to16%}, %2, %0" : "+v"(acc.v) : "m"(*reinterpret_cast<const int*>(a)), "v"(w.v));
  return acc;
}

}  // namespace
}  // namespace fastkv::simd
