// The int8 matrix product: exact int32 sums over a weight group, then one scaled float addition a group.
#pragma once

#include "simd/kernels/tiles.inl.hpp"

namespace fastkv::simd {
namespace {

// AVX-512: 12 integer and 12 float accumulators, 2 weight vectors, 6 left for scales and conversions. AVX2: the four
// float accumulator pairs live on the stack between groups, a load and a store in some 190 instructions.
inline constexpr int kI8Rows = kVectorBits == 512 ? 6 : kVectorBits == 256 ? 4 : 2;
inline constexpr int kI8Panels = kVectorBits == 512 ? 2 : 1;

/// Inputs that pass all tiles before the next ones, and panels that all rows pass: half of a 1 MiB L2.
inline constexpr std::int64_t kI8Inputs = 4096;
inline constexpr int kI8Resident = 8;

/// acc += a.scale · (b.scale · dot − b.min · Σq): the one place with this arithmetic, shared by gemm_i8 and gemv_i8 so
/// that they agree bitwise. `minus_sum` = −Σq of the group as a float.
FASTKV_INLINE F32 add_group(F32 acc, I32 dot, F32 a_scale, F32 b_scale) {
  return fma(to_float(dot) * b_scale, a_scale, acc);
}
FASTKV_INLINE F32 add_group(F32 acc, I32 dot, F32 a_scale, F32 b_scale, F32 b_min, F32 minus_sum) {
  return fma(fma(b_min, minus_sum, to_float(dot) * b_scale), a_scale, acc);
}

/// What a tile needs of its rows beside the int8 values, gathered once for all panels in the order that the tile reads:
/// one broadcast load each where sums, products and conversions would compete with the dot products for their ports.
struct I8RowTile {
  static constexpr int kMaxParts = int(kI8Inputs / 16);
  std::int32_t start[kMaxParts][kI8Rows];  ///< −zero·Σq of a weight group
  float minus_sum[kMaxParts][kI8Rows];     ///< −Σq of a weight group
  float scale[kI8Inputs / kGroup][kI8Rows];

  /// `rows` rows from the first group g0 to g1; `groups` is the number of groups of a whole row.
  void gather(int rows, int parts, const I8Rows& a, std::int64_t row, std::int64_t g0, std::int64_t g1,
              std::int64_t groups, int zero) {
    for (int r = 0; r < rows; ++r) {
      const std::int32_t* sums = a.sum + (row + r) * groups * 2;
      for (std::int64_t g = g0; g < g1; ++g) {
        scale[g - g0][r] = a.scale[(row + r) * groups + g];
        for (int part = 0; part < parts; ++part) {
          const std::int32_t sum = parts == 1 ? sums[2 * g] + sums[2 * g + 1] : sums[2 * g + part];
          start[(g - g0) * parts + part][r] = -zero * sum;
          minus_sum[(g - g0) * parts + part][r] = -float(sum);
        }
      }
    }
  }
};

/// One tile over the groups g0 .. g1−1; `q` is the first row's start.
template <int Rows, int Panels, int Group, bool Min, bool Wide>
void tile_i8(std::int64_t g0, std::int64_t g1, std::int64_t groups, const std::int8_t* q, const I8RowTile& rows,
             const I8Panels& b, std::int64_t p0, float* c, std::int64_t ldc) {
  constexpr int kParts = 32 / Group;
  const std::int64_t stride = groups * kGroup;
  const std::uint8_t* bq = b.q + p0 * groups * kGroup * kLanes;
  const float* b_scale = b.scale + p0 * groups * kParts * kLanes;
  const float* b_min = Min ? b.min + p0 * groups * kLanes : nullptr;
  Tile<Rows, Panels> t;
  t.start(c, ldc, g0 > 0);
  for (std::int64_t g = g0; g < g1; ++g) {
    for (int part = 0; part < kParts; ++part) {  // a real loop: unrolled, the parts overlap and spill
      const std::int64_t at = (g - g0) * kParts + part;
      I32 dot[Rows][Panels];
      unroll<Rows>([&](auto r) __attribute__((always_inline)) {
        unroll<Panels>([&](auto p) __attribute__((always_inline)) { dot[r][p] = I32::set(rows.start[at][r]); });
      });
      unroll<Group / 4>([&](auto step) __attribute__((always_inline)) {
        I32 w[Panels];
        unroll<Panels>([&](auto p) __attribute__((always_inline)) {
          w[p] = I32::load(bq + (p * groups + g) * (kGroup * kLanes) + (part * (Group / 4) + step) * 64);
        });
        unroll<Rows>([&](auto r) __attribute__((always_inline)) {
          const I32 x = I32::set(read<std::int32_t>(q + r * stride + g * kGroup + part * Group + step * 4));
          unroll<Panels>([&](auto p) __attribute__((always_inline)) { dot[r][p] = dot_i8<Wide>(dot[r][p], w[p], x); });
        });
      });
      unroll<Panels>([&](auto p) __attribute__((always_inline)) {
        const F32 scale = F32::load(b_scale + ((p * groups + g) * kParts + part) * kLanes);
        unroll<Rows>([&](auto r) __attribute__((always_inline)) {
          const F32 a_scale = F32::set(rows.scale[g - g0][r]);
          F32& acc = t.acc[r][p];
          if constexpr (Min) {
            acc = add_group(acc, dot[r][p], a_scale, scale, F32::load(b_min + (p * groups + g) * kLanes),
                            F32::set(rows.minus_sum[at][r]));
          } else {
            acc = add_group(acc, dot[r][p], a_scale, scale);
          }
        });
      });
    }
  }
  t.finish(c, ldc);
}

template <int Group, bool Min, bool Wide>
void gemm_i8_as(std::int64_t m, std::int64_t k32, const I8Rows& a, const I8Panels& b, std::int64_t panels, float* c,
                std::int64_t ldc) {
  const std::int64_t groups = k32 / kGroup;
  constexpr std::int64_t kBlock = kI8Inputs / kGroup;
  I8RowTile tile;
  for (std::int64_t g = 0; g < groups; g += kBlock) {
    const std::int64_t end = g + kBlock < groups ? g + kBlock : groups;
    for_tiles<kI8Rows, kI8Panels, kI8Resident>(
        m, panels,
        [&](auto rows, std::int64_t r)
            __attribute__((always_inline)) { tile.gather(rows, 32 / Group, a, r, g, end, groups, b.zero); },
        [&](auto rows, auto columns, std::int64_t r, std::int64_t p) __attribute__((always_inline)) {
          tile_i8<decltype(rows)::value, decltype(columns)::value, Group, Min, Wide>(
              g, end, groups, a.q + r * k32, tile, b, p, c + r * ldc + p * kLanes, ldc);
        });
  }
}

template <int Group, bool Min>
FASTKV_INLINE void gemm_i8_with(std::int64_t m, std::int64_t k32, const I8Rows& a, const I8Panels& b,
                                std::int64_t panels, float* c, std::int64_t ldc) {
  if constexpr (kWideCosts) {
    if (b.zero < 128) return gemm_i8_as<Group, Min, false>(m, k32, a, b, panels, c, ldc);
  }
  gemm_i8_as<Group, Min, true>(m, k32, a, b, panels, c, ldc);
}

void gemm_i8(std::int64_t m, std::int64_t k32, const I8Rows& a, const I8Panels& b, std::int64_t panels, float* c,
             std::int64_t ldc) {
  if (b.group == 16) {
    gemm_i8_with<16, false>(m, k32, a, b, panels, c, ldc);
  } else if (b.min) {
    gemm_i8_with<32, true>(m, k32, a, b, panels, c, ldc);
  } else {
    gemm_i8_with<32, false>(m, k32, a, b, panels, c, ldc);
  }
}

}  // namespace
}  // namespace fastkv::simd
