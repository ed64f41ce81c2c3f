// Kernels on rows of the residual stream: norm, sums, SwiGLU, rotary embedding, bfloat16.
#pragma once

#include "simd/kernels/math.inl.hpp"

namespace fastkv::simd {
namespace {

void rms_norm(const float* x, const float* weight, std::int64_t n, float eps, float* out) {
  F32 squares = F32::set(0.f);
  for_each_vector(
      n,
      [&](std::int64_t i) __attribute__((always_inline)) {
        const F32 v = F32::load(x + i);
        squares = fma(v, v, squares);
      },
      [&](std::int64_t i, std::int64_t rest) __attribute__((always_inline)) {
        const F32 v = load_first(x + i, rest);
        squares = fma(v, v, squares);
      });
  const float mean = n > 0 ? sum(squares) / float(n) : 0.f;
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
