// The bfloat16 matrix product on the tile registers of AMX: 2 x 2 tiles of 16 x 16 float32 sums.
#pragma once

#include "simd/kernels/pair.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr std::int64_t kTileRows = 16;
inline constexpr std::int64_t kTileInputs = 32;  ///< bfloat16 values in a row of 64 bytes
/// Inputs of 32 rows that stay in L1 (32 KiB) while all panels pass them. The panels come from L2 by loads that L1
/// gives up first: with 1,024 inputs from L2 2.5 of 3.06 TFLOP/s, 2.1 with loads that displace the rows, 1.8 without
/// blocking.
inline constexpr std::int64_t kAmxInputs = 512;
/// Panels that all rows pass before the next ones: half of a 2 MiB L2.
inline constexpr std::int64_t kAmxResidentBytes = 1 << 20;

/// The argument of ldtilecfg. Tiles 0 .. 3 are sums (0, 1: first 16 rows; 2, 3: the others), 4 and 5 rows of a, 6 and 7
/// panels of b.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {};

  constexpr TileConfig(int first, int second) {
    const int counts[8] = {first, first, second, second, first, second, 16, 16};
    for (int i = 0; i < 8; ++i) rows[i] = std::uint8_t(counts[i]);
  }
  /// Not _tile_loadconfig: g++ 12 believes that it reads 8 of the 64 bytes.
  void load() const { asm volatile("ldtilecfg %0" ::"m"(*this)); }
};

/// Tile loads do not tell the compiler which memory they read.
FASTKV_INLINE void memory_fence() { asm volatile("" ::: "memory"); }

/// One block of up to 32 rows × up to 2 panels: where it reads and writes.
struct AmxBlock {
  const std::uint16_t *a, *b;     ///< first row, first panel
  std::int64_t a_rows, b_panels;  ///< elements from a row to the 16th after it, from a panel to the next
  std::int64_t lda, k2;
  float* c;
  std::int64_t ldc;
  const std::uint16_t* next;  ///< rows that come after these, to be brought into L2 meanwhile
  std::int64_t next_rows;
};

template <bool Second, bool Pair>
FASTKV_INLINE void amx_step(const std::uint16_t* a, std::int64_t a_rows, std::int64_t lda, const std::uint16_t* b,
                            std::int64_t b_panels) {
  _tile_stream_loadd(6, b, 64);
  _tile_loadd(4, a, lda * 2);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (Pair) {
    _tile_stream_loadd(7, b + b_panels, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
  if constexpr (Second) {
    _tile_loadd(5, a + a_rows, lda * 2);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (Pair) _tile_dpbf16ps(3, 5, 7);
  }
}

/// The inputs k .. k2−1, fewer than a tile's: copies with zeros behind, on both sides, as 0 · NaN is no 0.
template <bool Second, bool Pair>
[[gnu::noinline]] void amx_tail(const AmxBlock& t, std::int64_t k, std::int64_t rows) {
  alignas(64) std::uint16_t a[2 * kTileRows * kTileInputs] = {}, b[2 * kTileRows * kTileInputs] = {};
  const std::int64_t rest = t.k2 - k;
  for (std::int64_t r = 0; r < rows; ++r) std::memcpy(a + r * kTileInputs, t.a + r * t.lda + k, std::size_t(rest) * 2);
  for (std::int64_t p = 0; p < (Pair ? 2 : 1); ++p)
    std::memcpy(b + p * kTileRows * kTileInputs, t.b + p * t.b_panels + k * kLanes, std::size_t(rest) * kLanes * 2);
  memory_fence();
  amx_step<Second, Pair>(a, kTileRows * kTileInputs, kTileInputs, b, kTileRows * kTileInputs);
}

/// c (+)= the block's product over the inputs k .. k1−1.
template <bool Second, bool Pair>
[[gnu::noinline]] void amx_tile(const AmxBlock& t, std::int64_t k, std::int64_t k1, std::int64_t rows,
                                bool accumulate) {
  const std::int64_t ldc = t.ldc * std::int64_t(sizeof(float));
  float* second = t.c + kTileRows * t.ldc;
  if (accumulate) {
    _tile_loadd(0, t.c, ldc);
    if constexpr (Pair) _tile_loadd(1, t.c + kLanes, ldc);
    if constexpr (Second) _tile_loadd(2, second, ldc);
    if constexpr (Second && Pair) _tile_loadd(3, second + kLanes, ldc);
  } else {
    _tile_zero(0);
    if constexpr (Pair) _tile_zero(1);
    if constexpr (Second) _tile_zero(2);
    if constexpr (Second && Pair) _tile_zero(3);
  }
  for (; k + kTileInputs <= k1; k += kTileInputs) {
    amx_step<Second, Pair>(t.a + k, t.a_rows, t.lda, t.b + k * kLanes, t.b_panels);
    for (std::int64_t i = 0; i < t.next_rows; ++i) _mm_prefetch(t.next + i * t.lda + k, _MM_HINT_T1);
  }
  if (k < k1) amx_tail<Second, Pair>(t, k, rows);
  _tile_stored(0, t.c, ldc);
  if constexpr (Pair) _tile_stored(1, t.c + kLanes, ldc);
  if constexpr (Second) _tile_stored(2, second, ldc);
  if constexpr (Second && Pair) _tile_stored(3, second + kLanes, ldc);
}

/// m rows in blocks of 32 (Second), or m ≤ 16 rows, against all panels. `last`: no rows come after them.
template <bool Second>
void amx_rows(std::int64_t m, std::int64_t k2, const std::uint16_t* a, std::int64_t lda, const std::uint16_t* b,
              std::int64_t panels, float* c, std::int64_t ldc, bool accumulate, bool last) {
  constexpr std::int64_t kBlock = 2 * kTileRows;
  const std::int64_t fit = kAmxResidentBytes / (k2 * kLanes * 2) / 2 * 2, resident = fit > 2 ? fit : 2;
  for (std::int64_t p0 = 0; p0 < panels; p0 += resident) {
    const std::int64_t p1 = p0 + resident < panels ? p0 + resident : panels, pairs = (p1 - p0 + 1) / 2;
    // Each pair of panels fetches its share of the next rows; it does not matter if there are none. Short rows of a
    // small matrix are in a cache anyway.
    const std::int64_t share = last || k2 < kAmxInputs || pairs < 4 ? 0 : (kBlock + pairs - 1) / pairs;
    for (std::int64_t r = 0; r < m; r += kBlock) {
      const std::int64_t rows = m - r < kBlock ? m - r : kBlock;
      for (std::int64_t k = 0; k < k2; k += kAmxInputs) {
        const std::int64_t k1 = k + kAmxInputs < k2 ? k + kAmxInputs : k2;
        for (std::int64_t p = p0; p < p1; p += 2) {
          const AmxBlock t{a + r * lda,
                           b + p * k2 * kLanes,
                           kTileRows * lda,
                           k2 * kLanes,
                           lda,
                           k2,
                           c + r * ldc + p * kLanes,
                           ldc,
                           a + (r + kBlock + (p - p0) / 2 * share) * lda,
                           share};
          if (p + 1 < p1)
            amx_tile<Second, true>(t, k, k1, rows, accumulate || k > 0);
          else
            amx_tile<Second, false>(t, k, k1, rows, accumulate || k > 0);
        }
      }
    }
  }
}

/// Rows beyond the last multiple of 32 come last, by themselves: their tiles have fewer rows, and a change of the
/// configuration clears the tiles.
void gemm_bf16(std::int64_t m, std::int64_t k2, const std::uint16_t* a, std::int64_t lda, const std::uint16_t* b,
               std::int64_t panels, float* c, std::int64_t ldc, bool accumulate) {
  static constexpr TileConfig kFull(kTileRows, kTileRows);
  const std::int64_t full = m / (2 * kTileRows) * (2 * kTileRows), rest = m - full;
  memory_fence();
  if (full > 0) {
    kFull.load();
    amx_rows<true>(full, k2, a, lda, b, panels, c, ldc, accumulate, false);
  }
  a += full * lda, c += full * ldc;
  if (rest > kTileRows) {
    TileConfig(int(kTileRows), int(rest - kTileRows)).load();
    amx_rows<true>(rest, k2, a, lda, b, panels, c, ldc, accumulate, true);
  } else if (rest > 0) {
    TileConfig(int(rest), int(kTileRows)).load();
    amx_rows<false>(rest, k2, a, lda, b, panels, c, ldc, accumulate, true);
  }
  _tile_release();
}

}  // namespace
}  // namespace fastkv::simd
