// Attention of prefill on AMX: 32 rows × 64 keys a step, scores and weighted sums on bfloat16 tiles, the exponential in
// 16-bit fixed point between them.
//
// Scores come out of the tiles in units of 2^-7 (128 · log2(e) is in the queries' scale), so that the bits of a
// bfloat16 probability 2^x are almost the integer 128 · (x + 127): exponent above, f instead of the mantissa 2^f − 1
// below. A table of 64 entries corrects that. In float32 the same takes four times the instructions, and while tiles
// are multiplied only one of the two 512-bit float units runs.
#pragma once

#include "simd/kernels/gemm_amx.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kBlockRows = 32;            ///< rows of a step
inline constexpr int kStepKeys = 64;             ///< keys of a step: its scores and probabilities stay in L1
inline constexpr std::int64_t kPassKeys = 1024;  ///< keys that all rows pass before the next ones: they stay in L2
inline constexpr int kTileBf16 = 512, kTileFloats = 256;  ///< elements of a tile
inline constexpr int kScoreUnits = 128;                   ///< a doubling of the probability
/// A row's reference is its first maximum times 2^16 or more: nothing is rescaled before a score is 2^17 times as
/// large.
inline constexpr int kHeadroom = 16;
inline constexpr std::int32_t kNoKeyYet = INT32_MIN;

/// round(x − 128 · (2^(x/128) − 1)) for x = 2i, 2i + 1 together.
alignas(64) constexpr std::uint8_t kMantissa[64] = {0,  1,  1,  2,  2,  3,  4,  4,  5,  5,  5,  6,  6,  7,  7,  8,
                                                    8,  8,  9,  9,  9,  9,  10, 10, 10, 10, 10, 11, 11, 11, 11, 11,
                                                    11, 11, 11, 11, 11, 11, 11, 11, 11, 10, 10, 10, 10, 10, 9,  9,
                                                    9,  8,  8,  8,  7,  7,  6,  6,  5,  5,  4,  3,  3,  2,  1,  1};

/// Key at place i of 32 as vpackusdw leaves them: four of the first 16, four of the second, and so on.
constexpr int key_at(int i) { return i / 8 * 4 + i % 4 + (i % 8 < 4 ? 0 : 16); }
struct KeyOrder {
  alignas(64) std::int16_t key[32];
  constexpr KeyOrder() : key{} {
    for (int i = 0; i < 32; ++i) key[i] = std::int16_t(key_at(i));
  }
};
constexpr KeyOrder kKeyOrder;

FASTKV_INLINE __mmask16 first_lanes(int n) { return __mmask16(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }

/// The buffers of one call, cut from AttentionRows::work; rows are padded to a multiple of 32 with rows that see no
/// key.
struct AmxWork {
  std::uint16_t* q;                ///< [rows/16][key_tiles] tiles
  float* o;                        ///< [rows/16][value_tiles] tiles, unnormalised
  float* l;                        ///< [rows, 16] sums of each lane
  std::int32_t* reference;         ///< [rows] what a score must be reduced by to be the bits of its probability
  std::int32_t* limits;            ///< [rows]
  std::int32_t *lowest, *highest;  ///< [rows/32] limits of a block's rows
  float* s;                        ///< [2 × 16 rows][4 × 16 keys] tiles of scores
  std::uint16_t* p;                ///< [2 × 16 rows][2 × 32 keys] tiles of probabilities
  float* spare;                    ///< [2] tiles: sums of the columns beyond d
  std::int64_t blocks;
  int key_tiles, value_tiles;  ///< d32/32, d16/16
};

/// Tiles 0 .. 3 on their way to memory: they are stored one by one while the next product starts, as a store waits for
/// its sums.
struct TileStores {
  float* to[4];
  bool waiting = false;
  FASTKV_INLINE void flush() {
    if (!waiting) return;
    _tile_stored(0, to[0], 64);
    _tile_stored(1, to[1], 64);
    _tile_stored(2, to[2], 64);
    _tile_stored(3, to[3], 64);
    waiting = false;
  }
};

/// Stores what is in tile T and starts it anew from c or zero. (The compiler's own intrinsics take literals only.)
template <int T, bool Accumulate>
FASTKV_INLINE void begin_tile(const TileStores& stores, const float* c) {
  constexpr std::int64_t kStride = 64;
  if (stores.waiting)
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(T), "r"(stores.to[T]), "r"(kStride) : "memory");
  if constexpr (Accumulate)
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(T), "r"(c), "r"(kStride) : "memory");
  else
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
}

/// 2 × 2 tiles (+)= a [2 tiles of rows][steps] · b [2 tiles of columns][steps]; `c`: where they go, and come from.
template <bool Accumulate>
FASTKV_INLINE void multiply_tiles(TileStores& stores, int steps, const std::uint16_t* a, std::int64_t a_rows,
                                  const std::uint16_t* b0, const std::uint16_t* b1, float* c0, float* c1, float* c2,
                                  float* c3) {
  _tile_loadd(4, a, 64);
  _tile_loadd(6, b0, 64);
  begin_tile<0, Accumulate>(stores, c0);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(5, a + a_rows, 64);
  begin_tile<2, Accumulate>(stores, c2);
  _tile_dpbf16ps(2, 5, 6);
  _tile_loadd(7, b1, 64);
  begin_tile<1, Accumulate>(stores, c1);
  _tile_dpbf16ps(1, 4, 7);
  begin_tile<3, Accumulate>(stores, c3);
  _tile_dpbf16ps(3, 5, 7);
  for (int k = 1; k < steps; ++k) {
    _tile_loadd(4, a + k * kTileBf16, 64);
    _tile_loadd(6, b0 + k * kTileBf16, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + a_rows + k * kTileBf16, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, b1 + k * kTileBf16, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
  stores = {{c0, c1, c2, c3}, true};
}

/// 32 rows against up to 64 keys.
struct AmxStep {
  std::int64_t block = -1, key = 0, pass = 0;
  int groups = 0;  ///< of 32 keys
  bool edge = false;

  /// The next one in the order passes, blocks, keys; false behind the last.
  FASTKV_INLINE bool advance(const AmxWork& w, std::int64_t last) {
    key += kStepKeys;
    if (block < 0 || key >= w.highest[block] || key >= pass + kPassKeys) {
      do {
        if (++block == w.blocks) block = 0, pass += kPassKeys;
        if (pass >= last) return false;
      } while (w.highest[block] <= pass);
      key = pass;
    }
    const std::int64_t seen = w.highest[block] - key;
    groups = seen > 32 ? 2 : 1;
    edge = w.lowest[block] < key + kStepKeys;
    return true;
  }
};

FASTKV_INLINE void score_step(const AmxWork& w, TileStores& stores, const AmxStep& step, const std::uint16_t* keys) {
  const std::int64_t panel = std::int64_t(w.key_tiles) * kTileBf16;
  for (int j = 0; j < step.groups; ++j) {
    const std::uint16_t* b = keys + (step.key / 16 + 2 * j) * panel;
    float* s = w.s + 2 * j * kTileFloats;
    multiply_tiles<false>(stores, w.key_tiles, w.q + step.block * 2 * panel, panel, b, b + panel, s, s + kTileFloats,
                          s + 4 * kTileFloats, s + 5 * kTileFloats);
  }
}

FASTKV_INLINE void value_step(const AmxWork& w, TileStores& stores, const AmxStep& step, const std::uint16_t* values) {
  constexpr std::int64_t kColumn = kKeyBlock / 32 * kTileBf16;  // one column of 16 values of a block of keys
  const std::uint16_t* b =
      values + step.key / kKeyBlock * kColumn * w.value_tiles + step.key % kKeyBlock / 32 * kTileBf16;
  const std::int64_t second = std::int64_t(w.value_tiles) * kTileFloats;
  float* o = w.o + step.block * 2 * second;
  int t = 0;
  for (; t + 2 <= w.value_tiles; t += 2, b += 2 * kColumn, o += 2 * kTileFloats)
    multiply_tiles<true>(stores, step.groups, w.p, 2 * kTileBf16, b, b + kColumn, o, o + kTileFloats, o + second,
                         o + second + kTileFloats);
  if (t < w.value_tiles)
    multiply_tiles<true>(stores, step.groups, w.p, 2 * kTileBf16, b, b, o, w.spare, o + second, w.spare + kTileFloats);
}

/// Sets, or raises, the reference of row r by its first n scores; what is summed so far follows.
[[gnu::noinline]] void raise_reference(const AmxWork& w, TileStores& stores, std::int64_t row, int r, int n) {
  const float* s = w.s + r / 16 * 4 * kTileFloats + r % 16 * 16;
  __m512 tops = _mm512_set1_ps(-1e8f);
  for (int i = 0; i < n; i += 16) {
    tops = _mm512_mask_max_ps(tops, first_lanes(n - i), _mm512_load_ps(s + i * 16),
                              tops);  // the second operand where one is NaN
  }
  float top = _mm512_reduce_max_ps(tops);
  top = top < 1e8f ? top : 1e8f;
  std::int32_t doublings = std::int32_t(top / kScoreUnits) + 1;  // whole ones: rescaling is exact
  const std::int32_t reference = (doublings + kHeadroom - 127) * kScoreUnits, before = w.reference[row];
  if (before != kNoKeyYet) {
    if (reference <= before) return;
    stores.flush();
    const std::int32_t exponent = (before - reference) / kScoreUnits;
    const __m512 factor =
        _mm512_scalef_ps(_mm512_set1_ps(1.f), _mm512_set1_ps(exponent < -126 ? -300.f : float(exponent)));
    float *l = w.l + row * 16, *o = w.o + row / 16 * w.value_tiles * kTileFloats + row % 16 * 16;
    _mm512_store_ps(l, _mm512_mul_ps(_mm512_load_ps(l), factor));
    for (int t = 0; t < w.value_tiles; ++t, o += kTileFloats)
      _mm512_store_ps(o, _mm512_mul_ps(_mm512_load_ps(o), factor));
  }
  w.reference[row] = reference;
}

/// The probabilities of row r of the step, and their sum; false if one is 2 or more, and nothing is summed.
template <bool Edge>
FASTKV_INLINE bool exponentiate_row(const AmxWork& w, std::int64_t row, int r, int n, int groups, bool last_try) {
  const __m512i table = _mm512_load_si512(kMantissa), ones = _mm512_set1_epi16(0x3f80);
  const __m512i reference = _mm512_set1_epi32(w.reference[row]);
  const float* s = w.s + r / 16 * 4 * kTileFloats + r % 16 * 16;
  std::uint16_t* p = w.p + r / 16 * 2 * kTileBf16 + r % 16 * 32;
  __m512 sums = _mm512_load_ps(w.l + row * 16);
  __m512i all = _mm512_setzero_si512();
  for (int j = 0; j < (Edge ? groups : 2); ++j) {
    const __m512i low = _mm512_cvtps_epi32(_mm512_load_ps(s + 2 * j * kTileFloats));
    const __m512i high = _mm512_cvtps_epi32(_mm512_load_ps(s + (2 * j + 1) * kTileFloats));
    __m512i x = _mm512_packus_epi32(_mm512_sub_epi32(low, reference), _mm512_sub_epi32(high, reference));
    if constexpr (Edge) {
      const __m512i order = _mm512_load_si512(kKeyOrder.key);
      x = _mm512_maskz_mov_epi16(_mm512_cmplt_epi16_mask(order, _mm512_set1_epi16(short(n - 32 * j))), x);
    }
    const __m512i less =
        _mm512_maskz_permutexvar_epi8(0x5555555555555555, _mm512_srli_epi16(x, 1), table);  // low bytes only
    const __m512i bits = _mm512_subs_epu16(x, less);
    all = _mm512_or_si512(all, x);
    _mm512_store_si512(p + j * kTileBf16, bits);
    sums = _mm512_dpbf16_ps(sums, (__m512bh)bits, (__m512bh)ones);
  }
  if (!last_try && _mm512_test_epi16_mask(all, _mm512_set1_epi16(short(0xc000)))) return false;
  _mm512_store_ps(w.l + row * 16, sums);
  return true;
}

template <bool Edge>
FASTKV_INLINE void exponentiate_step(const AmxWork& w, TileStores& stores, const AmxStep& step) {
  for (int r = 0; r < kBlockRows; ++r) {
    const std::int64_t row = step.block * kBlockRows + r;
    int n = kStepKeys;
    if constexpr (Edge) {
      const std::int64_t seen = w.limits[row] - step.key;
      n = int(seen < 0 ? 0 : seen < kStepKeys ? seen : kStepKeys);
    }
    if (n > 0 && w.reference[row] == kNoKeyYet) raise_reference(w, stores, row, r, n);
    if (!exponentiate_row<Edge>(w, row, r, n, step.groups, false)) {
      raise_reference(w, stores, row, r, n);
      exponentiate_row<Edge>(w, row, r, n, step.groups, true);
    }
  }
}

template <class T>
FASTKV_INLINE T* take_space(std::uint8_t*& memory, std::int64_t count) {
  T* out = reinterpret_cast<T*>(memory);
  memory += (std::size_t(count) * sizeof(T) + 63) / 64 * 64;
  return out;
}

/// Cuts the work space and fills in what does not depend on keys.
AmxWork amx_work(const AttentionRows& a, std::int32_t& last) {
  const std::int64_t count = a.m * a.group, rows = (count + kBlockRows - 1) / kBlockRows * kBlockRows;
  std::uint8_t* memory = static_cast<std::uint8_t*>(a.work);
  AmxWork w{};
  w.blocks = rows / kBlockRows;
  w.key_tiles = (a.d + 31) / 32, w.value_tiles = (a.d + 15) / 16;
  w.q = take_space<std::uint16_t>(memory, rows * w.key_tiles * 32);
  w.o = take_space<float>(memory, rows * w.value_tiles * 16);
  w.l = take_space<float>(memory, rows * 16);
  w.reference = take_space<std::int32_t>(memory, rows);
  w.limits = take_space<std::int32_t>(memory, rows);
  w.lowest = take_space<std::int32_t>(memory, w.blocks);
  w.highest = take_space<std::int32_t>(memory, w.blocks);
  w.s = take_space<float>(memory, 8 * kTileFloats);
  w.p = take_space<std::uint16_t>(memory, 4 * kTileBf16);
  w.spare = take_space<float>(memory, 2 * kTileFloats);
  std::memset(w.q, 0, std::size_t(rows * w.key_tiles) * 64);
  std::memset(w.o, 0, std::size_t(rows * w.value_tiles) * 64);
  std::memset(w.l, 0, std::size_t(rows) * 64);
  std::memset(w.spare, 0, 2 * kTileFloats * sizeof(float));
  const __m512 factor = _mm512_set1_ps(a.scale * 1.44269504f * kScoreUnits);
  last = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t i = r / a.group;
    const std::int32_t limit = r < count ? a.limits[i] : 0;
    w.limits[r] = limit;
    w.reference[r] = r < count ? kNoKeyYet : 0;
    std::int32_t &low = w.lowest[r / kBlockRows], &high = w.highest[r / kBlockRows];
    if (r % kBlockRows == 0) low = high = limit;
    low = limit < low ? limit : low, high = limit > high ? limit : high;
    last = limit > last ? limit : last;
    if (r >= count) continue;
    const float* from = a.q + i * a.ldq + r % a.group * a.d;
    std::uint16_t* to = w.q + r / 16 * w.key_tiles * kTileBf16 + r % 16 * 32;
    for (int c = 0; c < a.d; c += 16) {
      const __mmask16 some = first_lanes(a.d - c);
      const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_maskz_loadu_ps(some, from + c), factor));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + c / 32 * kTileBf16 + c % 32), (__m256i)narrow);
    }
  }
  return w;
}

void attend_bf16(const AttentionRows& a) {
  std::int32_t last;
  const AmxWork w = amx_work(a, last);
  const std::uint16_t *keys = static_cast<const std::uint16_t*>(a.keys),
                      *values = static_cast<const std::uint16_t*>(a.values);
  static constexpr TileConfig kFull(kTileRows, kTileRows);
  memory_fence();
  kFull.load();
  // Scores of the next step are multiplied before the values of this one, so that the exponentials of the next need not
  // wait for tiles.
  TileStores stores;
  AmxStep step, next;
  bool more = next.advance(w, last);
  if (more) score_step(w, stores, next, keys);
  stores.flush();
  while (more) {
    step = next;
    if (step.edge)
      exponentiate_step<true>(w, stores, step);
    else
      exponentiate_step<false>(w, stores, step);
    memory_fence();
    more = next.advance(w, last);
    if (more) score_step(w, stores, next, keys);
    value_step(w, stores, step, values);
  }
  stores.flush();
  _tile_release();
  for (std::int64_t r = 0; r < a.m * a.group; ++r) {
    const float* from = w.o + r / 16 * w.value_tiles * kTileFloats + r % 16 * 16;
    float* out = a.out + r / a.group * a.ldo + r % a.group * a.d;
    const __m512 factor = _mm512_set1_ps(1.f / _mm512_reduce_add_ps(_mm512_load_ps(w.l + r * 16)));
    for (int c = 0; c < a.d; c += 16, from += kTileFloats) {
      const __mmask16 some = first_lanes(a.d - c);
      _mm512_mask_storeu_ps(out + c, some, _mm512_mul_ps(_mm512_load_ps(from), factor));
    }
  }
}

/// 16 vectors of 16 elements of 32 bits, transposed in place.
FASTKV_INLINE void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  unroll<8>([&](auto i) __attribute__((always_inline)) {
    t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  });
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  });
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    const __m512i a = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88), b = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xdd), e = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xdd);
    t[i] = _mm512_shuffle_i32x4(a, b, 0x88), t[8 + i] = _mm512_shuffle_i32x4(a, b, 0xdd);
    t[4 + i] = _mm512_shuffle_i32x4(c, e, 0x88), t[12 + i] = _mm512_shuffle_i32x4(c, e, 0xdd);
  });
  unroll<16>([&](auto i) __attribute__((always_inline)) { v[i] = t[i]; });
}

void pack_keys_bf16(const float* keys, std::int64_t ld, int n, int d, std::uint16_t* panel) {
  for (int c = 0; c < d; c += 32, panel += kTileBf16) {
    __m512i rows[16];  // of 16 pairs
    unroll<16>([&](auto r) __attribute__((always_inline)) {
      const float* key = keys + (r < n ? r : 0) * ld + c;
      const __mmask16 low = r < n ? first_lanes(d - c) : 0, high = r < n ? first_lanes(d - c - 16) : 0;
      rows[r] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, key + 16), _mm512_maskz_loadu_ps(low, key));
    });
    transpose(rows);
    unroll<16>([&](auto r) __attribute__((always_inline)) { _mm512_store_si512(panel + r * 32, rows[r]); });
  }
}

void pack_values_bf16(const float* values, std::int64_t ld, int n, int n_pad, int d, std::uint16_t* out) {
  alignas(64) static constexpr std::int16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                               21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                               11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i interleave = _mm512_load_si512(kInterleave);
  for (int c = 0; c < d; c += 16) {
    const __mmask16 some = first_lanes(d - c);
    for (int j = 0; j < n_pad; j += 2, out += 32) {
      const int key = j / 32 * 32 + kKeyOrder.key[j % 32];
      const __m512 even = key < n ? _mm512_maskz_loadu_ps(some, values + key * ld + c) : _mm512_setzero_ps();
      const __m512 odd = key + 1 < n ? _mm512_maskz_loadu_ps(some, values + (key + 1) * ld + c) : _mm512_setzero_ps();
      _mm512_store_si512(out, _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(odd, even)));
    }
  }
}

}  // namespace
}  // namespace fastkv::simd
