// Scores and weighted sums over cached rows of any element type: the query heads of a group share each row's decoding.
#pragma once

#include "simd/kernels/math.inl.hpp"
#include "simd/kernels/tiles.inl.hpp"

namespace fastkv::simd {
namespace {

/// Values i .. i+15 of a cache row; all of them must exist (n = 16) or the first n are taken.
template <RowType T>
FASTKV_INLINE F32 load_row(const std::uint8_t* row, int i) {
  if constexpr (T == RowType::f32) return F32::load(reinterpret_cast<const float*>(row) + i);
  if constexpr (T == RowType::f16) return F32::from_f16(reinterpret_cast<const std::uint16_t*>(row) + i);
  if constexpr (T == RowType::bf16) return F32::from_bf16(reinterpret_cast<const std::uint16_t*>(row) + i);
  const std::uint8_t* block = row + i / 32 * 34;
  return F32::set_f16(read<std::uint16_t>(block)) *
         F32::from_i8(reinterpret_cast<const std::int8_t*>(block + 2 + i % 32));
}
/// The last n < 16 values of a row, zeros behind (never of q8_0, whose rows are whole blocks).
template <RowType T>
FASTKV_INLINE F32 load_row_first(const std::uint8_t* row, int i, int n) {
  constexpr int kSize = T == RowType::f32 ? 4 : 2;
  alignas(64) std::uint8_t values[16 * kSize] = {};
  std::memcpy(values, row + i * kSize, std::size_t(n * kSize));
  return load_row<T>(values, 0);
}

/// Values i .. i+16·N−1 of a cache row; for N > 1, i is a multiple of 32 (q8_0: one scale for two vectors).
template <RowType T, int N>
FASTKV_INLINE void load_row(const std::uint8_t* row, int i, F32 (&out)[N]) {
  if constexpr (T == RowType::q8_0 && N > 1) {
    const std::uint8_t* block = row + i / 32 * 34;
    unroll<N / 2>([&](auto b) __attribute__((always_inline)) {
      const F32 scale = F32::set_f16(read<std::uint16_t>(block + 34 * b));
      const std::int8_t* q = reinterpret_cast<const std::int8_t*>(block + 34 * b + 2);
      out[2 * b] = scale * F32::from_i8(q);
      out[2 * b + 1] = scale * F32::from_i8(q + 16);
    });
  } else {
    unroll<N>([&](auto v) __attribute__((always_inline)) { out[v] = load_row<T>(row, i + 16 * v); });
  }
}

inline constexpr int kHeads = 4;                                 ///< query heads that share the decoding of a row
inline constexpr int kValueChunks = kVectorBits == 512 ? 4 : 1;  ///< vectors of a value row summed at once
inline constexpr std::int64_t kValueRows = 16;                   ///< rows of a run that pass all chunks while in L1

/// Fetches the row that lies Ahead bytes ahead of this one.
template <std::size_t Ahead>
FASTKV_INLINE void prefetch_row(const std::uint8_t* row, std::size_t bytes) {
  for (std::size_t b = 0; b < bytes; b += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(row + Ahead + b), _MM_HINT_T0);
  }
}
/// On two Granite Rapids cores keys of float16 came at 28.9 GB/s, with 1024 at 27.3.
inline constexpr std::size_t kKeysAhead = 512;
/// With two rows of a run at a turn: 35 GB/s of float16, with one row at a turn and 1024 bytes 30.7.
inline constexpr std::size_t kValuesAhead = 768;

/// Scores of the keys at rows[0..3] of each of Heads query heads, out [Heads][4].
template <RowType T, int Heads>
FASTKV_INLINE void score_keys(const float* q, const std::uint8_t* const* rows, int d, float* out) {
  constexpr int kVectors = T == RowType::q8_0 ? 2 : 1;
  F32 acc[Heads][kKeyStreams];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<kKeyStreams>([&](auto j) __attribute__((always_inline)) { acc[g][j] = F32::set(0.f); });
  });
  int i = 0;
  for (; i + 16 * kVectors <= d; i += 16 * kVectors) {
    F32 key[kKeyStreams][kVectors];
    unroll<kKeyStreams>([&](auto j) __attribute__((always_inline)) { load_row<T, kVectors>(rows[j], i, key[j]); });
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        const F32 x = F32::load(q + g * d + i + 16 * v);
        unroll<kKeyStreams>([&](auto j) __attribute__((always_inline)) { acc[g][j] = fma(x, key[j][v], acc[g][j]); });
      });
    });
  }
  if constexpr (T != RowType::q8_0) {
    if (i < d) {
      F32 key[kKeyStreams];
      unroll<kKeyStreams>([&](auto j)
                              __attribute__((always_inline)) { key[j] = load_row_first<T>(rows[j], i, d - i); });
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        const F32 x = load_first(q + g * d + i, d - i);
        unroll<kKeyStreams>([&](auto j) __attribute__((always_inline)) { acc[g][j] = fma(x, key[j], acc[g][j]); });
      });
    }
  }
  sum_rows_of_four(acc, out);
}

template <RowType T, int Heads>
void attend_keys_as(const float* q, const std::uint8_t* keys, std::size_t stride, std::int64_t n, int d, float scale,
                    float* out, std::int64_t ldo) {
  const std::int64_t run = (n + kKeyStreams - 1) / kKeyStreams;
  for (std::int64_t j = 0; j < run; ++j) {
    const std::uint8_t* rows[kKeyStreams];
    int count = 0;  // keys that exist: the last run may be shorter, or empty when n is small
    for (int i = 0; i < kKeyStreams; ++i) {
      const std::int64_t at = j + i * run;
      if (at < n) count = i + 1;
      rows[i] = keys + std::size_t(at < n ? at : j) * stride;
      prefetch_row<kKeysAhead>(rows[i], stride);
    }
    alignas(64) float scores[Heads][kKeyStreams];
    score_keys<T, Heads>(q, rows, d, scores[0]);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      for (int i = 0; i < count; ++i) out[g * ldo + j + i * run] = scores[g][i] * scale;
    });
  }
}

/// acc[g][16·Chunks dims from c] += Σ p[g][j] · value[j] over j < rows and, after every second one, the same two of
/// the run behind if j < pairs.
template <RowType T, int Heads, int Chunks>
FASTKV_INLINE void sum_values(const float* p, std::int64_t ldp, const std::uint8_t* values, std::size_t stride,
                              std::int64_t run, std::int64_t rows, std::int64_t pairs, int d, int c, float* acc) {
  F32 total[Heads][Chunks];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<Chunks>([&](auto i) __attribute__((always_inline)) { total[g][i] = F32::load(acc + g * d + c + 16 * i); });
  });
  const auto add = [&](std::int64_t j) __attribute__((always_inline)) {
    const std::uint8_t* row = values + std::size_t(j) * stride;
    if (c == 0) prefetch_row<kValuesAhead>(row, stride);
    F32 v[Chunks];
    load_row<T, Chunks>(row, c, v);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 weight = F32::set(p[g * ldp + j]);
      unroll<Chunks>([&](auto i) __attribute__((always_inline)) { total[g][i] = fma(weight, v[i], total[g][i]); });
    });
  };
  std::int64_t j = 0;
  for (; j + 2 <= pairs; j += 2) add(j), add(j + 1), add(j + run), add(j + 1 + run);
  for (; j < pairs; ++j) add(j), add(j + run);
  for (; j < rows; ++j) add(j);
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<Chunks>([&](auto i) __attribute__((always_inline)) { total[g][i].store(acc + g * d + c + 16 * i); });
  });
}

template <RowType T, int Heads>
void attend_values_as(const float* p, std::int64_t ldp, const std::uint8_t* values, std::size_t stride, std::int64_t n,
                      int d, float* acc) {
  const std::int64_t run = (n + kValueStreams - 1) / kValueStreams;
  static_assert(kValueStreams == 2);
  for (std::int64_t j0 = 0; j0 < run; j0 += kValueRows, p += kValueRows, values += kValueRows * stride) {
    const std::int64_t rows = run - j0 < kValueRows ? run - j0 : kValueRows;
    const std::int64_t pairs = n - run - j0 < rows ? n - run - j0 : rows;
    int c = 0;
    for (; c + 16 * kValueChunks <= d; c += 16 * kValueChunks) {
      sum_values<T, Heads, kValueChunks>(p, ldp, values, stride, run, rows, pairs, d, c, acc);
    }
    for (; c + 16 <= d; c += 16) sum_values<T, Heads, 1>(p, ldp, values, stride, run, rows, pairs, d, c, acc);
    if constexpr (T != RowType::q8_0) {
      for (int g = 0; c < d && g < Heads; ++g) {
        F32 total = load_first(acc + g * d + c, d - c);
        for (std::int64_t j = 0; j < rows + pairs; ++j) {
          const std::int64_t at = j < rows ? j : j - rows + run;
          total = fma(F32::set(p[g * ldp + at]), load_row_first<T>(values + std::size_t(at) * stride, c, d - c), total);
        }
        store_first(total, acc + g * d + c, d - c);
      }
    }
  }
}

/// fn(row type as a constant).
template <class Fn>
FASTKV_INLINE void with_type(RowType type, Fn&& fn) {
  switch (type) {
    case RowType::f32:
      return fn(Index<int(RowType::f32)>{});
    case RowType::f16:
      return fn(Index<int(RowType::f16)>{});
    case RowType::bf16:
      return fn(Index<int(RowType::bf16)>{});
    case RowType::q8_0:
      return fn(Index<int(RowType::q8_0)>{});
  }
}

void attend_keys(RowType type, const float* q, int group, const void* keys, std::size_t stride, std::int64_t n, int d,
                 float scale, float* out, std::int64_t ldo) {
  for (int g = 0; g < group; g += kHeads) {
    with_type(
        type, [&](auto t) __attribute__((always_inline)) {
          with_count<kHeads>(
              group - g < kHeads ? group - g : kHeads, [&](auto heads) __attribute__((always_inline)) {
                attend_keys_as<RowType(decltype(t)::value), decltype(heads)::value>(
                    q + std::int64_t(g) * d, static_cast<const std::uint8_t*>(keys), stride, n, d, scale, out + g * ldo,
                    ldo);
              });
        });
  }
}

void attend_values(RowType type, const float* p, std::int64_t ldp, int group, const void* values, std::size_t stride,
                   std::int64_t n, int d, float* acc) {
  for (int g = 0; g < group; g += kHeads) {
    with_type(
        type, [&](auto t) __attribute__((always_inline)) {
          with_count<kHeads>(
              group - g < kHeads ? group - g : kHeads, [&](auto heads) __attribute__((always_inline)) {
                attend_values_as<RowType(decltype(t)::value), decltype(heads)::value>(
                    p + g * ldp, ldp, static_cast<const std::uint8_t*>(values), stride, n, d,
                    acc + std::int64_t(g) * d);
              });
        });
  }
}

}  // namespace
}  // namespace fastkv::simd
