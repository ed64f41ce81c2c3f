// The 128-bit registers of the x86-64 baseline: four of them make a 16-lane vector.
#pragma once

#include <xsimd/xsimd.hpp>

#include "simd/kernels/pair.inl.hpp"

namespace fastkv::simd {
namespace {

using Batch = xsimd::batch<float, xsimd::sse2>;

struct PartI {
  static constexpr int lanes = 4;
  __m128i v;
  FASTKV_INLINE static PartI load(const void* p) { return {_mm_loadu_si128(static_cast<const __m128i_u*>(p))}; }
  FASTKV_INLINE static PartI set(std::int32_t x) { return {_mm_set1_epi32(x)}; }
  FASTKV_INLINE static __m128i bytes_on_top(const void* p) {
    const __m128i zero = _mm_setzero_si128();
    return _mm_unpacklo_epi16(zero, _mm_unpacklo_epi8(zero, _mm_cvtsi32_si128(read<std::int32_t>(p))));
  }
  FASTKV_INLINE static PartI from_i8(const std::int8_t* p) { return {_mm_srai_epi32(bytes_on_top(p), 24)}; }
  FASTKV_INLINE void store(void* p) const { _mm_storeu_si128(static_cast<__m128i_u*>(p), v); }
  FASTKV_INLINE void to_i8(std::int8_t* p) const {
    const __m128i words = _mm_packs_epi32(v, v);
    const std::int32_t packed = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
    std::memcpy(p, &packed, sizeof packed);
  }
  FASTKV_INLINE void to_u16(std::uint16_t* p) const {
    // Sign-extending the low half first makes the signed saturation of packs harmless.
    const __m128i low = _mm_srai_epi32(_mm_slli_epi32(v, 16), 16);
    _mm_storel_epi64(reinterpret_cast<__m128i_u*>(p), _mm_packs_epi32(low, low));
  }
};
FASTKV_INLINE PartI operator+(PartI a, PartI b) { return {_mm_add_epi32(a.v, b.v)}; }
FASTKV_INLINE PartI operator-(PartI a, PartI b) { return {_mm_sub_epi32(a.v, b.v)}; }
/// The low halves of the products; the baseline multiplies every other lane.
FASTKV_INLINE PartI operator*(PartI a, PartI b) {
  const __m128i even = _mm_shuffle_epi32(_mm_mul_epu32(a.v, b.v), 0x08);
  const __m128i odd = _mm_shuffle_epi32(_mm_mul_epu32(_mm_srli_epi64(a.v, 32), _mm_srli_epi64(b.v, 32)), 0x08);
  return {_mm_unpacklo_epi32(even, odd)};
}
FASTKV_INLINE PartI operator&(PartI a, PartI b) { return {_mm_and_si128(a.v, b.v)}; }
FASTKV_INLINE PartI operator|(PartI a, PartI b) { return {_mm_or_si128(a.v, b.v)}; }
FASTKV_INLINE PartI operator^(PartI a, PartI b) { return {_mm_xor_si128(a.v, b.v)}; }
template <int N>
FASTKV_INLINE PartI shift_left(PartI x) {
  return {_mm_slli_epi32(x.v, N)};
}
template <int N>
FASTKV_INLINE PartI shift_right(PartI x) {
  return {_mm_srli_epi32(x.v, N)};
}
template <int N>
FASTKV_INLINE PartI shift_right_signed(PartI x) {
  return {_mm_srai_epi32(x.v, N)};
}
FASTKV_INLINE PartI select(PartI m, PartI a, PartI b) {
  return {_mm_or_si128(_mm_and_si128(m.v, a.v), _mm_andnot_si128(m.v, b.v))};
}

/// IEEE half bits (low 16 bits of each lane) to float bits: normals by moving the exponent, subnormals by letting the
/// float unit normalise them, infinity and NaN by the full exponent.
FASTKV_INLINE __m128 half_to_float(__m128i h) {
  const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x8000)), 16);
  const __m128i magnitude = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x7fff)), 13);
  const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0x1p112f));
  const __m128i special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x0f7fffff));
  const __m128i exponent = _mm_and_si128(special, _mm_set1_epi32(0x7f800000));
  return _mm_castsi128_ps(_mm_or_si128(_mm_or_si128(_mm_castps_si128(scaled), exponent), sign));
}

/// Float to IEEE half bits, nearest even; |x| ≤ 65504 or NaN.
FASTKV_INLINE __m128i float_to_half(__m128 x) {
  const __m128i bits = _mm_castps_si128(x);
  const __m128i sign = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(0x8000));
  const __m128i a = _mm_and_si128(bits, _mm_set1_epi32(0x7fffffff));
  // Subnormal halves: adding 0.5 leaves the half's bits, rounded to nearest even, at the bottom of the sum.
  const __m128i tiny =
      _mm_sub_epi32(_mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(a), _mm_set1_ps(0.5f))), _mm_set1_epi32(0x3f000000));
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(a, 13), _mm_set1_epi32(1));
  const __m128i rounded = _mm_add_epi32(_mm_add_epi32(a, _mm_set1_epi32(int(0xc8000fff))), odd);  // exponent − 112
  const __m128i normal = _mm_srli_epi32(rounded, 13);
  PartI half = select({_mm_cmplt_epi32(a, _mm_set1_epi32(0x38800000))}, {tiny}, {normal});
  half = select({_mm_cmpgt_epi32(a, _mm_set1_epi32(0x7f800000))}, {_mm_set1_epi32(0x7e00)}, half);
  return _mm_or_si128(half.v, sign);
}

struct PartF {
  static constexpr int lanes = 4;
  Batch v;
  FASTKV_INLINE static PartF load(const float* p) { return {Batch(_mm_loadu_ps(p))}; }
  FASTKV_INLINE static PartF set(float x) { return {Batch(_mm_set1_ps(x))}; }
  FASTKV_INLINE void store(float* p) const { _mm_storeu_ps(p, v); }
  FASTKV_INLINE static __m128i halves(const std::uint16_t* p) {
    return _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i_u*>(p)), _mm_setzero_si128());
  }
  FASTKV_INLINE static PartF from_f16(const std::uint16_t* p) { return {Batch(half_to_float(halves(p)))}; }
  FASTKV_INLINE static PartF set_f16(std::uint16_t x) { return {Batch(half_to_float(_mm_set1_epi32(x)))}; }
  FASTKV_INLINE static PartF from_bf16(const std::uint16_t* p) {
    return {Batch(_mm_castsi128_ps(_mm_slli_epi32(halves(p), 16)))};
  }
  FASTKV_INLINE static PartF from_i8(const std::int8_t* p) { return {Batch(_mm_cvtepi32_ps(PartI::from_i8(p).v))}; }
  FASTKV_INLINE static PartF from_u8(const std::uint8_t* p) {
    return {Batch(_mm_cvtepi32_ps(_mm_srli_epi32(PartI::bytes_on_top(p), 24)))};
  }
  FASTKV_INLINE void to_f16(std::uint16_t* p) const { PartI{float_to_half(v)}.to_u16(p); }
};
FASTKV_INLINE PartF operator+(PartF a, PartF b) { return {a.v + b.v}; }
FASTKV_INLINE PartF operator-(PartF a, PartF b) { return {a.v - b.v}; }
FASTKV_INLINE PartF operator*(PartF a, PartF b) { return {a.v * b.v}; }
FASTKV_INLINE PartF operator/(PartF a, PartF b) { return {a.v / b.v}; }
FASTKV_INLINE PartF fma(PartF a, PartF b, PartF c) { return {a.v * b.v + c.v}; }  // the baseline has no fused one
FASTKV_INLINE PartF max(PartF a, PartF b) { return {Batch(_mm_max_ps(a.v, b.v))}; }
FASTKV_INLINE PartF min(PartF a, PartF b) { return {Batch(_mm_min_ps(a.v, b.v))}; }
FASTKV_INLINE PartF keep_if_ge(PartF a, PartF x, PartF y) { return {Batch(_mm_and_ps(a.v, _mm_cmpnlt_ps(x.v, y.v)))}; }
FASTKV_INLINE PartI nan_mask(PartF x) { return {_mm_castps_si128(_mm_cmpunord_ps(x.v, x.v))}; }
FASTKV_INLINE PartF reciprocal(PartF x) { return PartF::set(1.f) / x; }
FASTKV_INLINE PartI as_int(PartF x) { return {_mm_castps_si128(x.v)}; }
FASTKV_INLINE PartF as_float(PartI x) { return {Batch(_mm_castsi128_ps(x.v))}; }
FASTKV_INLINE PartF to_float(PartI x) { return {Batch(_mm_cvtepi32_ps(x.v))}; }
FASTKV_INLINE PartI to_int(PartF x) { return {_mm_cvtps_epi32(x.v)}; }
/// No rounding down in the baseline: nearest after subtracting a half, so whole numbers may be a fraction of 1 above.
FASTKV_INLINE PartI floor_int(PartF x) { return to_int(x - PartF::set(0.5f)); }
FASTKV_INLINE PartF fraction(PartF x) { return x - to_float(floor_int(x)); }
FASTKV_INLINE PartF times_power(PartF p, PartF x) {
  const __m128i power = _mm_slli_epi32(floor_int(x).v, 23);
  return keep_if_ge({Batch(_mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(p.v), power)))}, x, PartF::set(-126.f));
}
FASTKV_INLINE PartF even_twice(PartF x) { return {Batch(_mm_shuffle_ps(x.v, x.v, 0xa0))}; }
FASTKV_INLINE PartF odd_twice(PartF x) { return {Batch(_mm_shuffle_ps(x.v, x.v, 0xf5))}; }
FASTKV_INLINE PartF swap_pairs(PartF x) { return {Batch(_mm_shuffle_ps(x.v, x.v, 0xb1))}; }
template <int Bit>
FASTKV_INLINE PartF swap_lanes(PartF x) {
  return {Batch(_mm_shuffle_ps(x.v, x.v, Bit == 1 ? 0xb1 : 0x4e))};
}

FASTKV_INLINE PartI lookup16(const std::uint8_t* table, PartI x) {
  alignas(16) std::uint8_t bytes[16];
  x.store(bytes);
  for (std::uint8_t& b : bytes) b = table[b & 15];
  return PartI::load(bytes);
}

/// Bytes 0, 2 and bytes 1, 3 of each lane as words: vpmaddwd sums two products in 32 bits, so nothing saturates.
template <bool wide>
FASTKV_INLINE PartI dot_i8(PartI acc, PartI w, PartI a) {
  const __m128i even =
      _mm_madd_epi16(_mm_and_si128(w.v, _mm_set1_epi16(0xff)), _mm_srai_epi16(_mm_slli_epi16(a.v, 8), 8));
  const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(w.v, 8), _mm_srai_epi16(a.v, 8));
  return {_mm_add_epi32(acc.v, _mm_add_epi32(even, odd))};
}

FASTKV_INLINE __m128 fold4(Pair<PartF> x) { return x.lo.v + x.hi.v; }
FASTKV_INLINE __m128 fold4_max(Pair<PartF> x) { return _mm_max_ps(x.lo.v, x.hi.v); }
FASTKV_INLINE __m128i fold4_int(Pair<PartI> x) { return (x.lo + x.hi).v; }

using F32 = Pair<Pair<PartF>>;
using I32 = Pair<Pair<PartI>>;
inline constexpr int kVectorBits = 128;

}  // namespace
}  // namespace fastkv::simd
