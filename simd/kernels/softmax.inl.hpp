// Softmax in pieces: row maximum, exponentials with their sum.
#pragma once

#include "simd/kernels/math.inl.hpp"

namespace fastkv::simd {
namespace {

/// Lanes 0..15 as floats: compared with a count they tell which lanes count.
FASTKV_INLINE F32 lane_numbers() {
  alignas(64) static constexpr float kNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return F32::load(kNumbers);
}
/// v in lanes < n, 0 elsewhere (n ≥ 1).
FASTKV_INLINE F32 keep_first(F32 v, std::int64_t n) { return keep_if_ge(v, F32::set(float(n - 1)), lane_numbers()); }

float row_max(const float* x, std::int64_t n) {
  constexpr int kChains = 4;  // one takes 0.3 us for 1024 scores
  F32 top[kChains];
  unroll<kChains>([&](auto c) __attribute__((always_inline)) { top[c] = F32::set(-kInfinity); });
  std::int64_t i = 0;
  for (; i + 16 * kChains <= n; i += 16 * kChains)
    unroll<kChains>([&](auto c) __attribute__((always_inline)) { top[c] = max(top[c], F32::load(x + i + 16 * c)); });
  for (; i + 16 <= n; i += 16) top[0] = max(top[0], F32::load(x + i));
  float best = max(max(max(top[0], top[1]), max(top[2], top[3])));
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

float exp_sum(float* x, std::int64_t n, float scale, float max) {
  const F32 a = F32::set(scale), shift = F32::set(-max);
  F32 total = F32::set(0.f);
  for_each_vector(
      n,
      [&](std::int64_t i) __attribute__((always_inline)) {
        const F32 e = exp(fma(a, F32::load(x + i), shift));
        e.store(x + i);
        total = total + e;
      },
      [&](std::int64_t i, std::int64_t rest) __attribute__((always_inline)) {
        const F32 e = exp(fma(a, load_first(x + i, rest), shift));
        store_first(e, x + i, rest);
        total = total + keep_first(e, rest);
      });
  return sum(total);
}

}  // namespace
}  // namespace fastkv::simd
