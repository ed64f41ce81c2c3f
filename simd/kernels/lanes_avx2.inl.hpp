// The 256-bit registers of AVX2, FMA and F16C: two of them make a 16-lane vector.
#pragma once

#include <xsimd/xsimd.hpp>

#include "simd/kernels/pair.inl.hpp"

namespace fastkv::simd {
namespace {

using Batch = xsimd::batch<float, xsimd::fma3<xsimd::avx2>>;

struct PartI {
  static constexpr int lanes = 8;
  __m256i v;
  FASTKV_INLINE static PartI load(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i_u*>(p))}; }
  FASTKV_INLINE static PartI set(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
  FASTKV_INLINE static PartI from_i8(const std::int8_t* p) {
    return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i_u*>(p)))};
  }
  FASTKV_INLINE void store(void* p) const { _mm256_storeu_si256(static_cast<__m256i_u*>(p), v); }
  FASTKV_INLINE void to_i8(std::int8_t* p) const {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i_u*>(p), _mm_packs_epi16(words, words));
  }
  FASTKV_INLINE void to_u16(std::uint16_t* p) const {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), words);
  }
};
FASTKV_INLINE PartI operator+(PartI a, PartI b) { return {_mm256_add_epi32(a.v, b.v)}; }
FASTKV_INLINE PartI operator-(PartI a, PartI b) { return {_mm256_sub_epi32(a.v, b.v)}; }
FASTKV_INLINE PartI operator*(PartI a, PartI b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
FASTKV_INLINE PartI operator&(PartI a, PartI b) { return {_mm256_and_si256(a.v, b.v)}; }
FASTKV_INLINE PartI operator|(PartI a, PartI b) { return {_mm256_or_si256(a.v, b.v)}; }
FASTKV_INLINE PartI operator^(PartI a, PartI b) { return {_mm256_xor_si256(a.v, b.v)}; }
template <int N>
FASTKV_INLINE PartI shift_left(PartI x) {
  return {_mm256_slli_epi32(x.v, N)};
}
template <int N>
FASTKV_INLINE PartI shift_right(PartI x) {
  return {_mm256_srli_epi32(x.v, N)};
}
template <int N>
FASTKV_INLINE PartI shift_right_signed(PartI x) {
  return {_mm256_srai_epi32(x.v, N)};
}
FASTKV_INLINE PartI select(PartI m, PartI a, PartI b) {
  return {_mm256_or_si256(_mm256_and_si256(m.v, a.v), _mm256_andnot_si256(m.v, b.v))};
}

struct PartF {
  static constexpr int lanes = 8;
  Batch v;
  FASTKV_INLINE static PartF load(const float* p) { return {Batch(_mm256_loadu_ps(p))}; }
  FASTKV_INLINE static PartF set(float x) { return {Batch(_mm256_set1_ps(x))}; }
  FASTKV_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  FASTKV_INLINE static __m128i words(const void* p) { return _mm_loadu_si128(static_cast<const __m128i_u*>(p)); }
  FASTKV_INLINE static __m128i eight_bytes(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i_u*>(p)); }
  FASTKV_INLINE static PartF from_f16(const std::uint16_t* p) { return {Batch(_mm256_cvtph_ps(words(p)))}; }
  FASTKV_INLINE static PartF set_f16(std::uint16_t x) { return {Batch(_mm256_cvtph_ps(_mm_set1_epi16(short(x))))}; }
  FASTKV_INLINE static PartF from_bf16(const std::uint16_t* p) {
    return {Batch(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words(p)), 16)))};
  }
  FASTKV_INLINE static PartF from_i8(const std::int8_t* p) {
    return {Batch(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight_bytes(p))))};
  }
  FASTKV_INLINE static PartF from_u8(const std::uint8_t* p) {
    return {Batch(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight_bytes(p))))};
  }
  FASTKV_INLINE void to_f16(std::uint16_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
};
FASTKV_INLINE PartF operator+(PartF a, PartF b) { return {a.v + b.v}; }
FASTKV_INLINE PartF operator-(PartF a, PartF b) { return {a.v - b.v}; }
FASTKV_INLINE PartF operator*(PartF a, PartF b) { return {a.v * b.v}; }
FASTKV_INLINE PartF operator/(PartF a, PartF b) { return {a.v / b.v}; }
FASTKV_INLINE PartF fma(PartF a, PartF b, PartF c) { return {xsimd::fma(a.v, b.v, c.v)}; }
FASTKV_INLINE PartF max(PartF a, PartF b) { return {Batch(_mm256_max_ps(a.v, b.v))}; }
FASTKV_INLINE PartF min(PartF a, PartF b) { return {Batch(_mm256_min_ps(a.v, b.v))}; }
FASTKV_INLINE PartF keep_if_ge(PartF a, PartF x, PartF y) {
  return {Batch(_mm256_and_ps(a.v, _mm256_cmp_ps(x.v, y.v, _CMP_NLT_UQ)))};
}
FASTKV_INLINE PartI nan_mask(PartF x) { return {_mm256_castps_si256(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q))}; }
FASTKV_INLINE PartF reciprocal(PartF x) { return PartF::set(1.f) / x; }
FASTKV_INLINE PartI as_int(PartF x) { return {_mm256_castps_si256(x.v)}; }
FASTKV_INLINE PartF as_float(PartI x) { return {Batch(_mm256_castsi256_ps(x.v))}; }
FASTKV_INLINE PartF to_float(PartI x) { return {Batch(_mm256_cvtepi32_ps(x.v))}; }
FASTKV_INLINE PartI to_int(PartF x) { return {_mm256_cvtps_epi32(x.v)}; }
FASTKV_INLINE PartF fraction(PartF x) { return {Batch(_mm256_sub_ps(x.v, _mm256_floor_ps(x.v)))}; }
FASTKV_INLINE PartF times_power(PartF p, PartF x) {
  const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(_mm256_floor_ps(x.v)), 23);
  const __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), power));
  return keep_if_ge({Batch(scaled)}, x, PartF::set(-126.f));
}
FASTKV_INLINE PartF even_twice(PartF x) { return {Batch(_mm256_moveldup_ps(x.v))}; }
FASTKV_INLINE PartF odd_twice(PartF x) { return {Batch(_mm256_movehdup_ps(x.v))}; }
FASTKV_INLINE PartF swap_pairs(PartF x) { return {Batch(_mm256_permute_ps(x.v, 0xb1))}; }
template <int Bit>
FASTKV_INLINE PartF swap_lanes(PartF x) {
  if constexpr (Bit == 4) return {Batch(_mm256_permute2f128_ps(x.v, x.v, 1))};
  return {Batch(_mm256_permute_ps(x.v, Bit == 1 ? 0xb1 : 0x4e))};
}

FASTKV_INLINE PartI lookup16(const std::uint8_t* table, PartI x) {
  const __m256i levels = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(table)));
  return {_mm256_shuffle_epi8(levels, x.v)};
}

/// Without VNNI. vpmaddubsw adds two products in 16 bits: safe while w ≤ 128 or the a are rotate_i8's. Else a wide w is
/// w' + 128 with w' signed: |w'| ≤ 128 takes its sign into a (|a| ≤ 127), and the 128 is added as a second dot product
/// with a constant.
template <bool wide>
FASTKV_INLINE PartI dot_i8_maddubs(PartI acc, PartI w, PartI a) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (!wide) {
    acc.v = _mm256_add_epi32(acc.v, _mm256_madd_epi16(_mm256_maddubs_epi16(w.v, a.v), ones));
    asm("" : "+x"(acc.v));  // or g++ 12 regroups the sums of a loop and spills them
    return acc;
  } else {
    const __m256i top = _mm256_set1_epi8(char(0x80));
    const __m256i centred = _mm256_xor_si256(w.v, top);
    const __m256i rest = _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(a.v, centred));
    const __m256i offset = _mm256_maddubs_epi16(top, a.v);
    return {_mm256_add_epi32(acc.v, _mm256_add_epi32(_mm256_madd_epi16(rest, ones), _mm256_madd_epi16(offset, ones)))};
  }
}

FASTKV_INLINE __m128 fold4(PartF x) { return _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1)); }
FASTKV_INLINE __m128 fold4_max(PartF x) {
  return _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
}
FASTKV_INLINE __m128i fold4_int(PartI x) {
  return _mm_add_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
}

using F32 = Pair<PartF>;
using I32 = Pair<PartI>;
inline constexpr int kVectorBits = 256;

}  // namespace
}  // namespace fastkv::simd
