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

inline constexpr int kHeads = 4;                                 ///< query heads that share the decoding of a row
inline constexpr int kKeys = 4;                                  ///< keys whose horizontal sums are taken together
inline constexpr int kValueChunks = kVectorBits == 512 ? 4 : 1;  ///< vectors of a value row summed at once
inline constexpr std::int64_t kValueRows = 32;                   ///< rows that all chunks pass while they are in L1

/// Four scores (keys at rows[0..3]) of each of Heads query heads.
template <RowType T, int Heads>
FASTKV_INLINE void score_keys(const float* q, const std::uint8_t* const* rows, int d, float scale, float* out,
                              std::int64_t ldo, int count) {
  F32 acc[Heads][kKeys];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<kKeys>([&](auto j) __attribute__((always_inline)) { acc[g][j] = F32::set(0.f); });
  });
  int i = 0;
  for (; i + 16 <= d; i += 16) {
    F32 key[kKeys];
    unroll<kKeys>([&](auto j) __attribute__((always_inline)) { key[j] = load_row<T>(rows[j], i); });
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 x = F32::load(q + g * d + i);
      unroll<kKeys>([&](auto j) __attribute__((always_inline)) { acc[g][j] = fma(x, key[j], acc[g][j]); });
    });
  }
  if constexpr (T != RowType::q8_0) {
    if (i < d) {
      F32 key[kKeys];
      unroll<kKeys>([&](auto j) __attribute__((always_inline)) { key[j] = load_row_first<T>(rows[j], i, d - i); });
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        const F32 x = load_first(q + g * d + i, d - i);
        unroll<kKeys>([&](auto j) __attribute__((always_inline)) { acc[g][j] = fma(x, key[j], acc[g][j]); });
      });
    }
  }
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    alignas(16) float scores[kKeys];
    _mm_store_ps(scores, _mm_mul_ps(sum_each(acc[g][0], acc[g][1], acc[g][2], acc[g][3]), _mm_set1_ps(scale)));
    std::memcpy(out + g * ldo, scores, std::size_t(count) * sizeof(float));
  });
}

template <RowType T, int Heads>
void attend_keys_as(const float* q, const std::uint8_t* keys, std::size_t stride, std::int64_t n, int d, float scale,
                    float* out, std::int64_t ldo) {
  for (std::int64_t j = 0; j < n; j += kKeys) {
    const std::int64_t last = n - 1;
    const std::uint8_t* rows[kKeys];
    for (std::int64_t i = 0; i < kKeys; ++i) rows[i] = keys + std::size_t(j + i < last ? j + i : last) * stride;
    score_keys<T, Heads>(q, rows, d, scale, out + j, ldo, int(n - j < kKeys ? n - j : kKeys));
  }
}

/// acc[g][16·Chunks dims from c] += Σ_j p[g][j] · value[j].
template <RowType T, int Heads, int Chunks>
void sum_values(const float* p, std::int64_t ldp, const std::uint8_t* values, std::size_t stride, std::int64_t n, int d,
                int c, float* acc) {
  F32 total[Heads][Chunks];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<Chunks>([&](auto i) __attribute__((always_inline)) { total[g][i] = F32::load(acc + g * d + c + 16 * i); });
  });
  for (std::int64_t j = 0; j < n; ++j, values += stride) {
    F32 v[Chunks];
    unroll<Chunks>([&](auto i) __attribute__((always_inline)) { v[i] = load_row<T>(values, c + 16 * i); });
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 weight = F32::set(p[g * ldp + j]);
      unroll<Chunks>([&](auto i) __attribute__((always_inline)) { total[g][i] = fma(weight, v[i], total[g][i]); });
    });
  }
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<Chunks>([&](auto i) __attribute__((always_inline)) { total[g][i].store(acc + g * d + c + 16 * i); });
  });
}

template <RowType T, int Heads>
void attend_values_as(const float* p, std::int64_t ldp, const std::uint8_t* values, std::size_t stride, std::int64_t n,
                      int d, float* acc) {
  for (std::int64_t j0 = 0; j0 < n; j0 += kValueRows, p += kValueRows, values += kValueRows * stride) {
    const std::int64_t rows = n - j0 < kValueRows ? n - j0 : kValueRows;
    int c = 0;
    for (; c + 16 * kValueChunks <= d; c += 16 * kValueChunks) {
      sum_values<T, Heads, kValueChunks>(p, ldp, values, stride, rows, d, c, acc);
    }
    for (; c + 16 <= d; c += 16) sum_values<T, Heads, 1>(p, ldp, values, stride, rows, d, c, acc);
    if constexpr (T != RowType::q8_0) {
      for (int g = 0; c < d && g < Heads; ++g) {
        F32 total = load_first(acc + g * d + c, d - c);
        for (std::int64_t j = 0; j < rows; ++j) {
          total = fma(F32::set(p[g * ldp + j]), load_row_first<T>(values + std::size_t(j) * stride, c, d - c), total);
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
