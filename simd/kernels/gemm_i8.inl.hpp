// The int8 matrix product of prefill: exact int32 sums over a wide group, then one scaled float addition a group.
#pragma once

#include "simd/kernels/tiles.inl.hpp"

namespace fastkv::simd {
namespace {

// AVX-512: 14 integer and 14 float accumulators, two weight vectors, a broadcast (6 rows ran at 71–76 % of the dot
// products' rate out of L2, 7 at 78 %). AVX2: the float accumulator pairs live on the stack between groups.
inline constexpr int kI8Rows = kVectorBits == 512 ? 7 : kVectorBits == 256 ? 4 : 2;
inline constexpr int kI8Panels = kVectorBits == 512 ? 2 : 1;

/// Inputs that pass all tiles before the next ones, and panels that all rows pass: half of a 2 MiB L2 with 2,048
/// inputs.
inline constexpr std::int64_t kI8Inputs = 4096;
inline constexpr int kI8Resident = 32;

/// Dot products unrolled: a block of rotated inputs, as the last group may be that short.
inline constexpr int kI8Steps = kRotation / 4;

/// An integer sum that starts at kFloatBias is, read as a float, 1.5·2²³ plus the sum (exact within ±2²²): conversion
/// and scaling then are one fused multiply-add, (sum + 1.5·2²³)·scale − 1.5·2²³·scale, whose product with 1.5·2²³ is
/// exact because weight scales have 22 significant bits. Without a fused one, sums are converted.
inline constexpr bool kFused = kVectorBits > 128;
inline constexpr float kFloatBiasValue = 0x1.8p23f;
inline constexpr std::int32_t kFloatBias = kFused ? 0x4b400000 : 0;
static_assert(kWideGroup * 127 * 127 < 1 << 22);
FASTKV_INLINE F32 scaled_sum(I32 sum, F32 scale, F32 minus_bias) {
  if constexpr (kFused) return fma(as_float(sum), scale, minus_bias);
  return to_float(sum) * scale;
}

/// What a tile needs of its rows beside the int8 values, gathered once for all panels in the order that the tile reads.
struct I8RowTile {
  std::int32_t start[kI8Inputs / kWideGroup][kI8Rows];
  float scale[kI8Inputs / kWideGroup][kI8Rows];

  /// `rows` rows from the first group g0 to g1; `groups` is the number of groups of a whole row.
  void gather(int rows, const RotatedRows& a, std::int64_t row, std::int64_t g0, std::int64_t g1, std::int64_t groups) {
    for (int r = 0; r < rows; ++r) {
      const std::int64_t at = (row + r) * groups;
      for (std::int64_t g = g0; g < g1; ++g) {
        scale[g - g0][r] = a.scale[at + g];
        start[g - g0][r] = kFloatBias - kWeightZero * a.sum[at + g];
      }
    }
  }
};

/// One tile over the groups g0 .. g1−1; `q` is the first row's start. The same groups of a row that comes after are
/// brought into L2 meanwhile (`next`; it does not matter if there is none), all lines of a group at once: between the
/// dot products each line costs some of them.
template <int Rows, int Panels>
void tile_i8(std::int64_t g0, std::int64_t g1, std::int64_t k64, const std::int8_t* q, const I8RowTile& rows,
             const RotatedPanels& b, std::int64_t p0, float* c, std::int64_t ldc, const std::int8_t* next) {
  const std::int64_t groups = (k64 + kWideGroup - 1) / kWideGroup;
  const std::uint8_t* bq = b.q + p0 * k64 * kLanes;
  const float* b_scale = b.scale + p0 * groups * kLanes;
  Tile<Rows, Panels> t;
  t.start(c, ldc, g0 > 0);
  for (std::int64_t g = g0; g < g1; ++g) {
    I32 dot[Rows][Panels];
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      unroll<Panels>([&](auto p) __attribute__((always_inline)) { dot[r][p] = I32::set(rows.start[g - g0][r]); });
    });
    unroll<kWideGroup / 64>([&](auto line) __attribute__((always_inline)) {
      _mm_prefetch(next + g * kWideGroup + line * 64, _MM_HINT_T1);
    });
    const std::int64_t end = (g + 1) * kWideGroup < k64 ? (g + 1) * kWideGroup : k64;
    for (std::int64_t k = g * kWideGroup; k < end; k += kI8Steps * 4) {
      unroll<kI8Steps>([&](auto step) __attribute__((always_inline)) {
        I32 w[Panels];
        unroll<Panels>([&](auto p) __attribute__((always_inline)) {
          w[p] = I32::load(bq + (p * k64 + k) * kLanes + step * 64);
        });
        unroll<Rows>([&](auto r) __attribute__((always_inline)) {
          const I32 x = I32::set(read<std::int32_t>(q + r * k64 + k + step * 4));
          unroll<Panels>([&](auto p) __attribute__((always_inline)) { dot[r][p] = dot_i8<false>(dot[r][p], w[p], x); });
        });
      });
    }
    unroll<Panels>([&](auto p) __attribute__((always_inline)) {
      const F32 scale = F32::load(b_scale + (p * groups + g) * kLanes);
      const F32 minus_bias = scale * F32::set(-kFloatBiasValue);
      unroll<Rows>([&](auto r) __attribute__((always_inline)) {
        t.acc[r][p] = fma(scaled_sum(dot[r][p], scale, minus_bias), F32::set(rows.scale[g - g0][r]), t.acc[r][p]);
      });
    });
  }
  t.finish(c, ldc);
}

void gemm_i8(std::int64_t m, std::int64_t k64, const RotatedRows& a, const RotatedPanels& b, std::int64_t panels,
             float* c, std::int64_t ldc) {
  const std::int64_t groups = (k64 + kWideGroup - 1) / kWideGroup;
  constexpr std::int64_t kBlock = kI8Inputs / kWideGroup;
  I8RowTile tile;
  for (std::int64_t g = 0; g < groups; g += kBlock) {
    const std::int64_t end = g + kBlock < groups ? g + kBlock : groups;
    for_tiles<kI8Rows, kI8Panels, kI8Resident>(
        m, panels,
        [&](auto rows, std::int64_t r) __attribute__((always_inline)) { tile.gather(rows, a, r, g, end, groups); },
        [&](auto rows, auto columns, std::int64_t r, std::int64_t p) __attribute__((always_inline)) {
          const std::int8_t* next = a.q + (r + kI8Rows + p / kI8Panels % kI8Rows) * k64;
          tile_i8<decltype(rows)::value, decltype(columns)::value>(g, end, k64, a.q + r * k64, tile, b, p,
                                                                   c + r * ldc + p * kLanes, ldc, next);
        });
  }
}

}  // namespace
}  // namespace fastkv::simd
