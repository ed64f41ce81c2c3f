// Softmax in pieces: row maximum, exponentials with their sum, and one block of the online softmax of attention.
#pragma once

#include "simd/kernels/math.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr float kInfinity = __builtin_inff();

/// Lanes 0..15 as floats: compared with a count they tell which lanes count.
FASTKV_INLINE F32 lane_numbers() {
  alignas(64) static constexpr float kNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return F32::load(kNumbers);
}
/// v in lanes < n, 0 elsewhere (n ≥ 1).
FASTKV_INLINE F32 keep_first(F32 v, std::int64_t n) { return keep_if_ge(v, F32::set(float(n - 1)), lane_numbers()); }

float row_max(const float* x, std::int64_t n) {
  F32 top = F32::set(-kInfinity);
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) top = max(top, F32::load(x + i));
  float best = max(top);
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

void clear_row(float* s, int n_pad, std::uint16_t* p_bf16) {
  std::memset(s, 0, std::size_t(n_pad) * sizeof(float));
  if (p_bf16) std::memset(p_bf16, 0, std::size_t(n_pad) * sizeof(std::uint16_t));
}

float softmax_block(float* s, int n, int n_pad, float scale, float* m, float* l, std::uint16_t* p_bf16) {
  const float block_max = scale * row_max(s, n);
  const float top = n > 0 && block_max > *m ? block_max : *m;
  if (n <= 0 || top == -kInfinity) {  // nothing counts, or only masked scores so far: p = 0 and nothing changes
    clear_row(s, n_pad, p_bf16);
    return 1.f;
  }
  const float alpha = *m == -kInfinity ? 0.f : exp(*m - top);
  const F32 a = F32::set(scale), shift = F32::set(-top);
  F32 total = F32::set(0.f);
  int i = 0;
  for (; i < n; i += 16) {
    F32 p = exp(fma(a, F32::load(s + i), shift));
    if (n - i < 16) p = keep_first(p, n - i);
    p.store(s + i);
    if (p_bf16) {
      const I32 rounded = round_bf16(p);
      shift_right<16>(rounded).to_u16(p_bf16 + i);
      p = as_float(rounded & I32::set(int(0xffff0000)));
    }
    total = total + p;
  }
  if (i < n_pad) clear_row(s + i, n_pad - i, p_bf16 ? p_bf16 + i : nullptr);
  *l = alpha * *l + sum(total);
  *m = top;
  return alpha;
}

}  // namespace
}  // namespace fastkv::simd
