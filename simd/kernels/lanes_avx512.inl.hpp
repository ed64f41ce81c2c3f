// The 512-bit registers of AVX-512 F, BW, DQ, VL: one is a 16-lane vector.
#pragma once

#include <xsimd/xsimd.hpp>

#include "simd/kernels/pair.inl.hpp"

namespace fastkv::simd {
namespace {

using Batch = xsimd::batch<float, xsimd::avx512bw>;

struct I32 {
  static constexpr int lanes = 16;
  static constexpr int bytes = 64;
  __m512i v;
  FASTKV_INLINE static I32 load(const void* p) { return {_mm512_loadu_si512(p)}; }
  FASTKV_INLINE static I32 set(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
  FASTKV_INLINE static I32 from_i8(const std::int8_t* p) {
    return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p)))};
  }
  FASTKV_INLINE void store(void* p) const { _mm512_storeu_si512(p, v); }
  FASTKV_INLINE void to_i8(std::int8_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), _mm512_cvtsepi32_epi8(v));
  }
  FASTKV_INLINE void to_u16(std::uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), _mm512_cvtepi32_epi16(v));
  }
};
FASTKV_INLINE I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
FASTKV_INLINE I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
FASTKV_INLINE I32 operator*(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
FASTKV_INLINE I32 operator&(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
FASTKV_INLINE I32 operator|(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
FASTKV_INLINE I32 operator^(I32 a, I32 b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int N>
FASTKV_INLINE I32 shift_left(I32 x) {
  return {_mm512_slli_epi32(x.v, N)};
}
template <int N>
FASTKV_INLINE I32 shift_right(I32 x) {
  return {_mm512_srli_epi32(x.v, N)};
}
template <int N>
FASTKV_INLINE I32 shift_right_signed(I32 x) {
  return {_mm512_srai_epi32(x.v, N)};
}
FASTKV_INLINE I32 select(I32 m, I32 a, I32 b) { return {_mm512_ternarylogic_epi32(m.v, a.v, b.v, 0xca)}; }

FASTKV_INLINE I32 in_register(I32 x) {
  asm("" : "+v"(x.v));
  return x;
}

struct F32 {
  static constexpr int lanes = 16;
  Batch v;
  FASTKV_INLINE static F32 load(const float* p) { return {Batch(_mm512_loadu_ps(p))}; }
  FASTKV_INLINE static F32 set(float x) { return {Batch(_mm512_set1_ps(x))}; }
  FASTKV_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  FASTKV_INLINE static __m256i words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i_u*>(p)); }
  FASTKV_INLINE static __m128i sixteen_bytes(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i_u*>(p));
  }
  FASTKV_INLINE static F32 from_f16(const std::uint16_t* p) { return {Batch(_mm512_cvtph_ps(words(p)))}; }
  FASTKV_INLINE static F32 set_f16(std::uint16_t x) { return {Batch(_mm512_cvtph_ps(_mm256_set1_epi16(short(x))))}; }
  FASTKV_INLINE static F32 from_bf16(const std::uint16_t* p) {
    return {Batch(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words(p)), 16)))};
  }
  FASTKV_INLINE static F32 from_i8(const std::int8_t* p) {
    return {Batch(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen_bytes(p))))};
  }
  FASTKV_INLINE static F32 from_u8(const std::uint8_t* p) {
    return {Batch(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen_bytes(p))))};
  }
  FASTKV_INLINE void to_f16(std::uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
};
FASTKV_INLINE F32 operator+(F32 a, F32 b) { return {a.v + b.v}; }
FASTKV_INLINE F32 operator-(F32 a, F32 b) { return {a.v - b.v}; }
FASTKV_INLINE F32 operator*(F32 a, F32 b) { return {a.v * b.v}; }
FASTKV_INLINE F32 operator/(F32 a, F32 b) { return {a.v / b.v}; }
/// Not xsimd::fma, which in 8.1 is a product and a sum for its AVX-512 architectures.
FASTKV_INLINE F32 fma(F32 a, F32 b, F32 c) { return {Batch(_mm512_fmadd_ps(a.v, b.v, c.v))}; }
FASTKV_INLINE F32 max(F32 a, F32 b) { return {Batch(_mm512_max_ps(a.v, b.v))}; }
FASTKV_INLINE F32 min(F32 a, F32 b) { return {Batch(_mm512_min_ps(a.v, b.v))}; }
FASTKV_INLINE F32 keep_if_ge(F32 a, F32 x, F32 y) {
  return {Batch(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_NLT_UQ), a.v))};
}
FASTKV_INLINE I32 nan_mask(F32 x) { return {_mm512_movm_epi32(_mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q))}; }
FASTKV_INLINE F32 reciprocal(F32 x) { return {Batch(_mm512_rcp14_ps(x.v))}; }
FASTKV_INLINE I32 as_int(F32 x) { return {_mm512_castps_si512(x.v)}; }
FASTKV_INLINE F32 as_float(I32 x) { return {Batch(_mm512_castsi512_ps(x.v))}; }
FASTKV_INLINE F32 to_float(I32 x) { return {Batch(_mm512_cvtepi32_ps(x.v))}; }
FASTKV_INLINE I32 to_int(F32 x) { return {_mm512_cvtps_epi32(x.v)}; }
FASTKV_INLINE F32 fraction(F32 x) { return {Batch(_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF))}; }
FASTKV_INLINE F32 times_power(F32 p, F32 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(-126.f), _CMP_NLT_UQ);
  return {Batch(_mm512_maskz_scalef_ps(normal, p.v, x.v))};
}
FASTKV_INLINE F32 even_twice(F32 x) { return {Batch(_mm512_moveldup_ps(x.v))}; }
FASTKV_INLINE F32 odd_twice(F32 x) { return {Batch(_mm512_movehdup_ps(x.v))}; }
FASTKV_INLINE F32 swap_pairs(F32 x) { return {Batch(_mm512_permute_ps(x.v, 0xb1))}; }
template <int Bit>
FASTKV_INLINE F32 swap_lanes(F32 x) {
  if constexpr (Bit >= 4) return {Batch(_mm512_shuffle_f32x4(x.v, x.v, Bit == 4 ? 0xb1 : 0x4e))};
  return {Batch(_mm512_permute_ps(x.v, Bit == 1 ? 0xb1 : 0x4e))};
}

FASTKV_INLINE I32 narrow(I32 a, I32 b, I32 c, I32 d) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i words = _mm512_packs_epi32(a.v, b.v), more = _mm512_packs_epi32(c.v, d.v);
  return {_mm512_permutexvar_epi32(order, _mm512_packs_epi16(words, more))};
}

FASTKV_INLINE I32 lookup16(const std::uint8_t* table, I32 x) {
  const __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(table)));
  return {_mm512_shuffle_epi8(levels, x.v)};
}

/// Without VNNI. vpmaddubsw adds two products in 16 bits: safe while w ≤ 128 or the a are rotate_i8's. Else a wide w is
/// split at its top bit.
template <bool wide>
FASTKV_INLINE I32 dot_i8_maddubs(I32 acc, I32 w, I32 a) {
  const __m512i ones = _mm512_set1_epi16(1);
  if constexpr (!wide) {
    acc.v = _mm512_add_epi32(acc.v, _mm512_madd_epi16(_mm512_maddubs_epi16(w.v, a.v), ones));
    asm("" : "+v"(acc.v));  // or g++ 12 regroups the sums of a loop and spills them
    return acc;
  } else {
    const __m512i top = _mm512_set1_epi8(char(0x80));
    const __m512i low = _mm512_maddubs_epi16(_mm512_andnot_si512(top, w.v), a.v);
    const __m512i high = _mm512_maddubs_epi16(_mm512_and_si512(top, w.v), a.v);
    return {_mm512_add_epi32(acc.v, _mm512_add_epi32(_mm512_madd_epi16(low, ones), _mm512_madd_epi16(high, ones)))};
  }
}

FASTKV_INLINE __m128 fold4(F32 x) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
FASTKV_INLINE __m128 fold4_max(F32 x) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  return _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
FASTKV_INLINE __m128i fold4_int(I32 x) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(x.v), _mm512_extracti32x8_epi32(x.v, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

inline constexpr int kVectorBits = 512;

}  // namespace
}  // namespace fastkv::simd
