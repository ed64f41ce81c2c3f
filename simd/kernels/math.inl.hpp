// Helpers on 16-lane vectors: partial loads, horizontal sums in a fixed order, the exponential.
#pragma once

#include "simd/kernels/pair.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr float kInfinity = __builtin_inff();

/// The first n < 16 lanes from x, zeros behind.
FASTKV_INLINE F32 load_first(const float* x, std::int64_t n) {
  alignas(64) float lanes[16] = {};
  std::memcpy(lanes, x, std::size_t(n) * sizeof(float));
  return F32::load(lanes);
}
FASTKV_INLINE void store_first(F32 v, float* x, std::int64_t n) {
  alignas(64) float lanes[16];
  v.store(lanes);
  std::memcpy(x, lanes, std::size_t(n) * sizeof(float));
}

/// fn(vector index i, count ≤ 16) over n elements; the last call may be partial.
template <class Full, class Part>
FASTKV_INLINE void for_each_vector(std::int64_t n, Full&& full, Part&& part) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) full(i);
  if (i < n) part(i, n - i);
}

/// x[i] = fn(x[i], …) over vectors of 16: `fn` gets a loader and returns the vector to store in out.
template <class Fn>
FASTKV_INLINE void map(std::int64_t n, float* out, Fn&& fn) {
  for_each_vector(
      n,
      [&](std::int64_t i) __attribute__((always_inline)) {
        fn([&](const float* x) __attribute__((always_inline)) { return F32::load(x + i); }).store(out + i);
      },
      [&](std::int64_t i, std::int64_t rest) __attribute__((always_inline)) {
        store_first(fn([&](const float* x) __attribute__((always_inline)) { return load_first(x + i, rest); }), out + i,
                    rest);
      });
}

// Four lanes to one: (x0 + x2) + (x1 + x3).
FASTKV_INLINE float sum4(__m128 x) {
  const __m128 two = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
FASTKV_INLINE float max4(__m128 x) {
  const __m128 two = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
FASTKV_INLINE float sum(F32 x) { return sum4(fold4(x)); }
FASTKV_INLINE float max(F32 x) { return max4(fold4_max(x)); }
FASTKV_INLINE std::int32_t sum(I32 x) {
  const __m128i four = fold4_int(x);
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
FASTKV_INLINE F32 abs(F32 x) { return as_float(as_int(x) & I32::set(0x7fffffff)); }

/// e^x within 2 eps of the result, plus nothing for the argument: Cody-Waite reduction by ln 2 in two parts, a degree-6
/// polynomial on ±ln(2)/2 (minimax; Cephes expf), scaled by 2^n. Below −86.9 it is 0 (no slow subnormals), above 89
/// infinity, NaN stays NaN.
FASTKV_INLINE F32 exp(F32 x) {
  const F32 smallest = F32::set(-86.9f);
  const F32 t = min(F32::set(89.f), max(smallest, x));  // the second operand survives when one is NaN
  const I32 n = to_int(t * F32::set(1.44269504f));
  const F32 nf = to_float(n);
  F32 r = fma(nf, F32::set(-0.693359375f), t);
  r = fma(nf, F32::set(2.12194440e-4f), r);
  F32 p = F32::set(1.9875691500e-4f);
  p = fma(p, r, F32::set(1.3981999507e-3f));
  p = fma(p, r, F32::set(8.3334519073e-3f));
  p = fma(p, r, F32::set(4.1665795894e-2f));
  p = fma(p, r, F32::set(1.6666665459e-1f));
  p = fma(p, r, F32::set(5.0000001201e-1f));
  p = fma(p, r * r, r) + F32::set(1.f);
  // 2p · 2^(n−1): n reaches 128, whose power of two a float does not hold.
  const F32 power = as_float(shift_left<23>(n + I32::set(126)));
  return keep_if_ge((p + p) * power, x, smallest);
}
FASTKV_INLINE float exp(float x) {
  alignas(64) float lanes[16];
  exp(F32::set(x)).store(lanes);
  return lanes[0];
}

/// 2^x for x ≤ 0 (beyond it as far as floats reach), 0 below −126: a minimax polynomial of 2^f on [0, 1), relative
/// error 7.5e-5 (degree 3, a fifth of bfloat16's half unit) or 2e-9 (degree 6).
template <int Degree>
FASTKV_INLINE F32 exp2(F32 x) {
  const F32 f = fraction(x);
  F32 p;
  if constexpr (Degree == 3) {
    p = fma(F32::set(7.8024520042e-2f), f, F32::set(2.2606715913e-1f));
    p = fma(p, f, F32::set(6.9583353922e-1f));
    p = fma(p, f, F32::set(9.9992521862e-1f));
  } else {
    static_assert(Degree == 6);
    p = fma(F32::set(2.1702255204e-4f), f, F32::set(1.2439687902e-3f));
    p = fma(p, f, F32::set(9.6788409880e-3f));
    p = fma(p, f, F32::set(5.5483341989e-2f));
    p = fma(p, f, F32::set(2.4022983627e-1f));
    p = fma(p, f, F32::set(6.9314698384e-1f));
    p = fma(p, f, F32::set(1.0000000019f));
  }
  return times_power(p, x);
}

}  // namespace
}  // namespace fastkv::simd
