// How every matrix product walks its output: tiles of rows × panels held in registers, a few panels resident in L2.
#pragma once

#include "simd/kernels/pair.inl.hpp"

namespace fastkv::simd {
namespace {

/// Float panels that all rows pass before the next ones are read: a few hundred KiB of L2.
inline constexpr std::int64_t kFloatResident = 4;

/// fn(Index<n>) for a run-time 1 ≤ n ≤ Max.
template <int Max, class Fn>
FASTKV_INLINE void with_count(std::int64_t n, Fn&& fn) {
  if constexpr (Max > 1) {
    if (n < Max) return with_count<Max - 1>(n, fn);
  }
  fn(Index<Max>{});
}

/// fn(Index<rows>, Index<columns>, first row, first panel) covers m rows × panels by tiles of Rows × Panels at most;
/// begin(Index<rows>, first row) comes before the tiles of the same rows.
template <int Rows, int Panels, int Resident, class Begin, class Fn>
FASTKV_INLINE void for_tiles(std::int64_t m, std::int64_t panels, Begin&& begin, Fn&& fn) {
  for (std::int64_t p0 = 0; p0 < panels; p0 += Resident) {
    const std::int64_t p1 = p0 + Resident < panels ? p0 + Resident : panels;
    for (std::int64_t r = 0; r < m; r += Rows) {
      with_count<Rows>(
          m - r < Rows ? m - r : Rows, [&](auto rows) __attribute__((always_inline)) {
            begin(rows, r);
            for (std::int64_t p = p0; p < p1; p += Panels) {
              with_count<Panels>(
                  p1 - p < Panels ? p1 - p : Panels, [&](auto columns)
                                                         __attribute__((always_inline)) { fn(rows, columns, r, p); });
            }
          });
    }
  }
}
template <int Rows, int Panels, class Fn>
FASTKV_INLINE void for_tiles(std::int64_t m, std::int64_t panels, Fn&& fn) {
  for_tiles<Rows, Panels, kFloatResident>(m, panels, [](auto, std::int64_t) __attribute__((always_inline)){}, fn);
}

/// The accumulators of a tile, from c or zero, and back to c.
template <int Rows, int Panels>
struct Tile {
  F32 acc[Rows][Panels];

  FASTKV_INLINE void start(const float* c, std::int64_t ldc, bool accumulate) {
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      unroll<Panels>([&](auto p) __attribute__((always_inline)) {
        acc[r][p] = accumulate ? F32::load(c + int(r) * ldc + int(p) * kLanes) : F32::set(0.f);
      });
    });
  }
  FASTKV_INLINE void finish(float* c, std::int64_t ldc) const {
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      unroll<Panels>([&](auto p)
                         __attribute__((always_inline)) { acc[r][p].store(c + int(r) * ldc + int(p) * kLanes); });
    });
  }
};

}  // namespace
}  // namespace fastkv::simd
