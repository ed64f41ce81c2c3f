// Matrix products in float32 and bfloat16 (float32 accumulation), weights in panels of 16.
#pragma once

#include "simd/kernels/tiles.inl.hpp"

namespace fastkv::simd {
namespace {

// Accumulators: 24 of 32 registers in AVX-512, 12 of 16 in AVX2, 8 of 16 in SSE2.
inline constexpr int kFloatRows = kVectorBits == 512 ? 12 : kVectorBits == 256 ? 6 : 2;
inline constexpr int kFloatPanels = kVectorBits == 512 ? 2 : 1;

template <int Rows, int Panels>
void tile_f32(std::int64_t k, const float* a, std::int64_t lda, const float* b, float* c, std::int64_t ldc,
              bool accumulate) {
  Tile<Rows, Panels> t;
  t.start(c, ldc, accumulate);
  for (std::int64_t i = 0; i < k; ++i) {
    F32 w[Panels];
    unroll<Panels>([&](auto p) __attribute__((always_inline)) { w[p] = F32::load(b + (p * k + i) * kLanes); });
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      const F32 x = F32::set(a[r * lda + i]);
      unroll<Panels>([&](auto p) __attribute__((always_inline)) { t.acc[r][p] = fma(x, w[p], t.acc[r][p]); });
    });
  }
  t.finish(c, ldc);
}

void gemm_f32(std::int64_t m, std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t panels,
              float* c, std::int64_t ldc, bool accumulate) {
  for_tiles<kFloatRows, kFloatPanels>(
      m, panels, [&](auto rows, auto columns, std::int64_t r, std::int64_t p) __attribute__((always_inline)) {
        tile_f32<decltype(rows)::value, decltype(columns)::value>(k, a + r * lda, lda, b + p * k * kLanes,
                                                                  c + r * ldc + p * kLanes, ldc, accumulate);
      });
}

template <int Rows, int Panels>
void tile_bf16(std::int64_t k2, const std::uint16_t* a, std::int64_t lda, const std::uint16_t* b, float* c,
               std::int64_t ldc, bool accumulate) {
  Tile<Rows, Panels> t;
  t.start(c, ldc, accumulate);
  for (std::int64_t i = 0; i < k2; i += 2) {
    I32 w[Panels];
    unroll<Panels>([&](auto p) __attribute__((always_inline)) { w[p] = I32::load(b + (p * k2 + i) * kLanes); });
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      const I32 x = I32::set(read<std::int32_t>(a + r * lda + i));
      unroll<Panels>([&](auto p) __attribute__((always_inline)) { t.acc[r][p] = dot_bf16(t.acc[r][p], w[p], x); });
    });
  }
  t.finish(c, ldc);
}

void gemm_bf16(std::int64_t m, std::int64_t k2, const std::uint16_t* a, std::int64_t lda, const std::uint16_t* b,
               std::int64_t panels, float* c, std::int64_t ldc, bool accumulate) {
  for_tiles<kFloatRows, kFloatPanels>(
      m, panels, [&](auto rows, auto columns, std::int64_t r, std::int64_t p) __attribute__((always_inline)) {
        tile_bf16<decltype(rows)::value, decltype(columns)::value>(k2, a + r * lda, lda, b + p * k2 * kLanes,
                                                                   c + r * ldc + p * kLanes, ldc, accumulate);
      });
}

}  // namespace
}  // namespace fastkv::simd
