// Kernels on rows of the residual stream: norm, sums, SwiGLU, rotary embedding, bfloat16.
#pragma once

#include "simd/kernels/math.inl.hpp"

namespace fastkv::simd {
namespace {

void rms_norm(const float* x, const float* weight, std::int64_t n, float eps, float* out) {
  F32 squares[4];  // one chain of sums would take longer than the loads
  unroll<4>([&](auto j) __attribute__((always_inline)) { squares[j] = F32::set(0.f); });
  std::int64_t first = 0;
  for (; first + 64 <= n; first += 64) {
    unroll<4>([&](auto j) __attribute__((always_inline)) {
      const F32 v = F32::load(x + first + j * kLanes);
      squares[j] = fma(v, v, squares[j]);
    });
  }
  const auto add = [&](F32 v) __attribute__((always_inline)) { squares[0] = fma(v, v, squares[0]); };
  for_each_vector(
      n - first, [&](std::int64_t i) __attribute__((always_inline)) { add(F32::load(x + first + i)); },
      [&](std::int64_t i, std::int64_t rest) __attribute__((always_inline)) { add(load_first(x + first + i, rest)); });
  const F32 total = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  const float mean = n > 0 ? sum(total) / float(n) : 0.f;
  const F32 factor = F32::set(1.f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps))));
  map(
      n, out, [&](auto at) __attribute__((always_inline)) { return at(x) * factor * at(weight); });
}

void add(float* x, const float* y, std::int64_t n) {
  map(
      n, x, [&](auto at) __attribute__((always_inline)) { return at(x) + at(y); });
}

void scale(float* x, float a, std::int64_t n) {
  map(
      n, x, [&](auto at) __attribute__((always_inline)) { return at(x) * F32::set(a); });
}

void axpy(float a, const float* x, std::int64_t n, float* y) {
  map(
      n, y, [&](auto at) __attribute__((always_inline)) { return fma(F32::set(a), at(x), at(y)); });
}

void silu_mul(const float* gate, const float* up, std::int64_t n, float* out) {
  map(
      n, out, [&](auto at) __attribute__((always_inline)) {
        const F32 g = at(gate);
        return g / (F32::set(1.f) + exp(F32::set(0.f) - g)) * at(up);
      });
}

void silu_mul_narrow(const float* gate, const float* up, std::int64_t n, float* out) {
  map(
      n, out, [&](auto at) __attribute__((always_inline)) {
        const F32 g = at(gate), power = exp2<3>(g * F32::set(-1.44269504f));
        // Below −87 the power may be anything, and the result is less than 2e-36.
        return keep_if_ge(g * reciprocal(F32::set(1.f) + power), g, F32::set(-87.f)) * at(up);
      });
}

void rope(float* x, const float* cos_sin, int heads, int d) {
  // (x, y) -> (x·cos − y·sin, y·cos + x·sin): the sine's sign alternates along the pair.
  alignas(64) static constexpr std::int32_t kSigns[16] = {INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0,
                                                          INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0};
  const I32 signs = I32::load(kSigns);
  for (int h = 0; h < heads; ++h) {
    float* head = x + std::int64_t(h) * d;
    map(
        d, head, [&](auto at) __attribute__((always_inline)) {
          const F32 cs = at(cos_sin), v = at(head);
          const F32 sine = as_float(as_int(odd_twice(cs)) ^ signs);
          return fma(v, even_twice(cs), swap_pairs(v) * sine);
        });
  }
}

void f32_to_bf16(const float* x, std::int64_t n, std::uint16_t* out) {
  for_each_vector(
      n, [&](std::int64_t i) __attribute__((always_inline)) { store_bf16(F32::load(x + i), out + i); },
      [&](std::int64_t i, std::int64_t rest) __attribute__((always_inline)) {
        alignas(64) std::uint16_t lanes[16];
        store_bf16(load_first(x + i, rest), lanes);
        std::memcpy(out + i, lanes, std::size_t(rest) * 2);
      });
}

}  // namespace
}  // namespace fastkv::simd
