// Attention of prefill: rows of queries against blocks of 128 keys, scores, online softmax and weighted sum of a few
// rows at a time so that their scores stay in L1. Softmax is in base 2: log2(e) is in the queries' scale.
#pragma once

#include "simd/kernels/rows.inl.hpp"
#include "simd/kernels/tiles.inl.hpp"

namespace fastkv::simd {
namespace {

// Accumulators: 24 of 32 registers in AVX-512, 12 of 16 in AVX2, 8 of 16 in SSE2.
inline constexpr int kQueryRows = kVectorBits == 512 ? 12 : kVectorBits == 256 ? 6 : 2;
inline constexpr int kQueryPanels = kVectorBits == 512 ? 2 : 1;
inline constexpr float kLog2e = 1.44269504f;

/// The buffers of one call, cut from AttentionRows::work. Rows are (position, head of the group), padded to a multiple
/// of kQueryRows with rows that see no key.
template <class Element>
struct PrefillWork {
  Element* q;            ///< [rows, dq], times scale · log2(e)
  float* o;              ///< [rows, d16] unnormalised output
  float* l;              ///< [rows, 16] sums of each lane
  float* m;              ///< [rows] maxima so far
  std::int32_t* limits;  ///< [rows]
  float* s;              ///< [kQueryRows, 128] scores, then (float32) probabilities
  std::uint16_t* p;      ///< [kQueryRows, 128] probabilities (bfloat16)
};

template <class T>
FASTKV_INLINE T* take(std::uint8_t*& memory, std::int64_t count) {
  T* out = reinterpret_cast<T*>(memory);
  memory += (std::size_t(count) * sizeof(T) + 63) / 64 * 64;
  return out;
}

/// c [kQueryRows, 16·Panels] (+)= a [kQueryRows, k] · b, panels `ldb` elements apart. k even for bfloat16.
template <int Panels>
FASTKV_INLINE void multiply_rows(int k, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                                 std::int64_t ldc, bool accumulate) {
  Tile<kQueryRows, Panels> t;
  t.start(c, ldc, accumulate);
  for (int i = 0; i < k; ++i) {
    F32 w[Panels];
    unroll<Panels>([&](auto p) __attribute__((always_inline)) { w[p] = F32::load(b + p * ldb + i * kLanes); });
    unroll<kQueryRows>([&](auto r) __attribute__((always_inline)) {
      const F32 x = F32::set(a[r * lda + i]);
      unroll<Panels>([&](auto p) __attribute__((always_inline)) { t.acc[r][p] = fma(x, w[p], t.acc[r][p]); });
    });
  }
  t.finish(c, ldc);
}
template <int Panels>
FASTKV_INLINE void multiply_rows(int k, const std::uint16_t* a, std::int64_t lda, const std::uint16_t* b,
                                 std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate) {
  Tile<kQueryRows, Panels> t;
  t.start(c, ldc, accumulate);
  for (int i = 0; i < k; i += 2) {
    I32 w[Panels];
    unroll<Panels>([&](auto p) __attribute__((always_inline)) { w[p] = I32::load(b + p * ldb + i * kLanes); });
    unroll<kQueryRows>([&](auto r) __attribute__((always_inline)) {
      const I32 x = I32::set(read<std::int32_t>(a + r * lda + i));
      unroll<Panels>([&](auto p) __attribute__((always_inline)) { t.acc[r][p] = dot_bf16(t.acc[r][p], w[p], x); });
    });
  }
  t.finish(c, ldc);
}

template <class Element>
[[gnu::noinline]] void multiply_panels(int k, const Element* a, std::int64_t lda, const Element* b, std::int64_t ldb,
                                       int panels, float* c, std::int64_t ldc, bool accumulate) {
  int p = 0;
  for (; p + kQueryPanels <= panels; p += kQueryPanels)
    multiply_rows<kQueryPanels>(k, a, lda, b + p * ldb, ldb, c + p * kLanes, ldc, accumulate);
  if constexpr (kQueryPanels > 1) {
    if (p < panels) multiply_rows<1>(k, a, lda, b + p * ldb, ldb, c + p * kLanes, ldc, accumulate);
  }
}

/// Two vectors of probabilities as bfloat16 pairs, rounded to nearest (halves up; no NaN, no sign).
FASTKV_INLINE I32 pair_probabilities(F32 even, F32 odd) {
  const I32 half = I32::set(0x8000);
  return shift_right<16>(as_int(even) + half) | ((as_int(odd) + half) & I32::set(int(0xffff0000)));
}

/// Row r of the group at `w`: the first n of `columns` scores to probabilities, its maximum, sums and output updated.
template <class Element>
FASTKV_INLINE void softmax_row(const PrefillWork<Element>& w, int r, std::int64_t row, int n, int columns, int d16) {
  float* s = w.s + r * kKeyBlock;
  for (int i = n; i < columns; ++i) s[i] = -kInfinity;
  if (n == 0) {
    if constexpr (sizeof(Element) == 2)
      std::memset(w.p + r * kKeyBlock, 0, std::size_t(columns) * sizeof(std::uint16_t));
    else
      std::memset(s, 0, std::size_t(columns) * sizeof(float));
    return;
  }
  F32 tops = F32::load(s);
  for (int i = kLanes; i < n; i += kLanes) tops = max(tops, F32::load(s + i));
  const float top = max(tops);
  float* l = w.l + row * kLanes;
  F32 sums = F32::load(l);
  if (top > w.m[row]) {
    const F32 alpha = exp2<6>(F32::set(w.m[row] - top));
    float* o = w.o + row * d16;
    for (int i = 0; i < d16; i += kLanes) (F32::load(o + i) * alpha).store(o + i);
    sums = sums * alpha;
    w.m[row] = top;
  }
  const F32 shift = F32::set(w.m[row]);
  if constexpr (sizeof(Element) == 2) {
    const I32 ones = I32::set(0x3f803f80);
    for (int i = 0; i < columns; i += 2 * kLanes) {
      const F32 even = F32::load(s + i), odd = F32::load(s + i + kLanes);
      const I32 p = pair_probabilities(exp2<3>(even - shift), exp2<3>(odd - shift));
      p.store(w.p + r * kKeyBlock + i);
      sums = dot_bf16(sums, p, ones);
    }
  } else {
    for (int i = 0; i < columns; i += kLanes) {
      const F32 p = exp2<6>(F32::load(s + i) - shift);
      p.store(s + i);
      sums = sums + p;
    }
  }
  sums.store(l);
}

/// The queries of `a` as rows times scale · log2(e), zeros behind d.
inline void load_queries(const AttentionRows& a, std::int64_t dq, float* q) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    for (int g = 0; g < a.group; ++g, q += dq) {
      std::memcpy(q, a.q + i * a.ldq + g * a.d, std::size_t(a.d) * sizeof(float));
      scale(q, a.scale * kLog2e, a.d);
    }
  }
}
inline void load_queries(const AttentionRows& a, std::int64_t dq, std::uint16_t* q) {
  alignas(64) float row[256];
  for (std::int64_t i = 0; i < a.m; ++i) {
    for (int g = 0; g < a.group; ++g, q += dq) {
      std::memcpy(row, a.q + i * a.ldq + g * a.d, std::size_t(a.d) * sizeof(float));
      scale(row, a.scale * kLog2e, a.d);
      f32_to_bf16(row, a.d, q);
    }
  }
}

template <class Element>
void attend_rows(const AttentionRows& a) {
  const int d16 = (a.d + 15) / 16 * 16, dq = sizeof(Element) == 2 ? (a.d + 31) / 32 * 32 : a.d;
  const std::int64_t count = a.m * a.group, rows = (count + kQueryRows - 1) / kQueryRows * kQueryRows;
  std::uint8_t* memory = static_cast<std::uint8_t*>(a.work);
  PrefillWork<Element> all;
  all.q = take<Element>(memory, rows * dq);
  all.o = take<float>(memory, rows * d16);
  all.l = take<float>(memory, rows * kLanes);
  all.m = take<float>(memory, rows);
  all.limits = take<std::int32_t>(memory, rows);
  all.s = take<float>(memory, kQueryRows * kKeyBlock);
  all.p = take<std::uint16_t>(memory, kQueryRows * kKeyBlock);
  std::memset(all.q + count * dq, 0, std::size_t((rows - count) * dq) * sizeof(Element));
  load_queries(a, dq, all.q);
  std::memset(all.o, 0, std::size_t(rows * d16) * sizeof(float));
  std::memset(all.l, 0, std::size_t(rows * kLanes) * sizeof(float));
  std::int32_t last = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    all.m[r] = -kInfinity;
    all.limits[r] = r < count ? a.limits[r / a.group] : 0;
    last = all.limits[r] > last ? all.limits[r] : last;
  }

  const Element *keys = static_cast<const Element*>(a.keys), *values = static_cast<const Element*>(a.values);
  for (std::int64_t k0 = 0; k0 < last; k0 += kKeyBlock, keys += kKeyBlock * dq, values += kKeyBlock * d16) {
    for (std::int64_t row = 0; row < rows; row += kQueryRows) {
      std::int64_t end = 0;
      for (int r = 0; r < kQueryRows; ++r) end = all.limits[row + r] > end ? all.limits[row + r] : end;
      if (end <= k0) continue;
      end = end - k0 < kKeyBlock ? end - k0 : kKeyBlock;
      const int columns = int(end + 31) / 32 * 32;  // whole pairs of panels
      multiply_panels(sizeof(Element) == 2 ? (a.d + 1) / 2 * 2 : a.d, all.q + row * dq, dq, keys, kLanes * dq,
                      columns / kLanes, all.s, kKeyBlock, false);
      for (int r = 0; r < kQueryRows; ++r) {
        const std::int64_t n = all.limits[row + r] - k0;
        softmax_row(all, r, row + r, int(n < 0 ? 0 : n < columns ? n : columns), columns, d16);
      }
      float* o = all.o + row * d16;
      if constexpr (sizeof(Element) == 2)
        multiply_panels(columns, all.p, kKeyBlock, values, kKeyBlock * kLanes, d16 / kLanes, o, d16, true);
      else
        multiply_panels(columns, all.s, kKeyBlock, values, kKeyBlock * kLanes, d16 / kLanes, o, d16, true);
    }
  }
  for (std::int64_t r = 0; r < count; ++r) {
    float* out = a.out + r / a.group * a.ldo + r % a.group * a.d;
    std::memcpy(out, all.o + r * d16, std::size_t(a.d) * sizeof(float));
    scale(out, 1.f / sum(F32::load(all.l + r * kLanes)), a.d);
  }
}

void attend_f32(const AttentionRows& a) { attend_rows<float>(a); }
void attend_bf16(const AttentionRows& a) { attend_rows<std::uint16_t>(a); }

}  // namespace
}  // namespace fastkv::simd
