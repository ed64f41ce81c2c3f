// Attention over cached rows of any element type: the query heads of a group share each row's decoding.
#pragma once

#include "simd/kernels/softmax.inl.hpp"
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

/// How far ahead of their use keys and values are fetched. On two Granite Rapids cores float16 rows of 64 came at 97 %
/// of the read loop with 1024, 100 % with 2304, 102 % with 3072, 87 % with 4096.
inline constexpr std::int64_t kRowsAhead = 3072;

/// Sums of a score, of its even and odd dims: with one the additions of a single head wait for each other.
inline constexpr int kChains = kVectorBits == 512 ? 2 : 1;
inline constexpr int kTurnDims = 8;  ///< dims of a panel between two fetches
static_assert(kTurnDims % kChains == 0);

/// Dim i of a panel's 16 keys, of q8_0 without their scales.
template <RowType T>
FASTKV_INLINE F32 load_keys(const std::uint8_t* panel, int i) {
  if constexpr (T == RowType::f32) return F32::load(reinterpret_cast<const float*>(panel) + i * kLanes);
  if constexpr (T == RowType::f16) return F32::from_f16(reinterpret_cast<const std::uint16_t*>(panel) + i * kLanes);
  if constexpr (T == RowType::bf16) return F32::from_bf16(reinterpret_cast<const std::uint16_t*>(panel) + i * kLanes);
  return F32::from_i8(reinterpret_cast<const std::int8_t*>(panel) + i * kLanes);
}

template <int Heads>
struct ScoreSums {
  F32 of[Heads][kChains];

  FASTKV_INLINE ScoreSums() {
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      unroll<kChains>([&](auto c) __attribute__((always_inline)) { of[g][c] = F32::set(0.f); });
    });
  }
  /// += q[g] · keys over the dims [begin, begin + Dims), which lie at `at`; begin is a multiple of kTurnDims.
  template <RowType T, int Dims>
  FASTKV_INLINE void add(const float* q, int d, const std::uint8_t* at, int begin) {
    unroll<Dims>([&](auto i) __attribute__((always_inline)) {
      const F32 key = load_keys<T>(at, i);
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        F32& sum = of[g][i % kChains];
        sum = fma(F32::set(q[g * d + begin + i]), key, sum);
      });
    });
  }
  FASTKV_INLINE F32 total(int g) const { return kChains == 2 ? of[g][0] + of[g][kChains - 1] : of[g][0]; }
};

/// Scores of 16 keys, unscaled: a key's sum runs over its dims in order, whatever the other keys. Fetches what lies
/// `ahead` bytes behind them.
template <RowType T, int Heads>
FASTKV_INLINE void score_keys(const float* q, const std::uint8_t* at, std::int64_t ahead, int d, F32 (&score)[Heads]) {
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { score[g] = F32::set(0.f); });
  const auto finish = [&](const ScoreSums<Heads>& sums, F32 scale) __attribute__((always_inline)) {
    unroll<Heads>([&](auto g) __attribute__((always_inline)) { score[g] = fma(scale, sums.total(g), score[g]); });
  };
  if constexpr (T == RowType::q8_0) {
    for (int i = 0; i < d; i += 32) {  // scales of 16 keys, then 32 dims
      fetch<2 * kLanes + 32 * kLanes>(at + ahead);
      const F32 scale = F32::from_f16(reinterpret_cast<const std::uint16_t*>(at));
      at += 2 * kLanes;
      ScoreSums<Heads> sums;
      for (int part = 0; part < 32; part += kTurnDims, at += kTurnDims * kLanes)
        sums.template add<T, kTurnDims>(q, d, at, i + part);
      finish(sums, scale);
    }
  } else {
    constexpr int kDimBytes = kLanes * (T == RowType::f32 ? 4 : 2);
    ScoreSums<Heads> sums;
    int i = 0;
    for (; i + kTurnDims <= d; i += kTurnDims, at += kTurnDims * kDimBytes) {
      fetch<kTurnDims * kDimBytes>(at + ahead);
      sums.template add<T, kTurnDims>(q, d, at, i);
    }
    for (; i < d; ++i, at += kDimBytes) sums.template add<T, 1>(q, d, at, i);
    finish(sums, F32::set(1.f));
  }
}

template <RowType T, int Heads>
void attend_keys_as(const float* q, const std::uint8_t* keys, std::int64_t n, int d, float scale, float* out,
                    std::int64_t ldo) {
  const std::size_t bytes = kLanes * row_bytes(T, d);
  for (std::int64_t j = 0; j < n; j += kLanes, keys += bytes) {
    F32 score[Heads];
    score_keys<T>(q, keys, kRowsAhead, d, score);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 scaled = score[g] * F32::set(scale);
      float* to = out + g * ldo + j;
      n - j >= kLanes ? scaled.store(to) : store_first(scaled, to, n - j);
    });
  }
}

/// The scores of a panel's 16 keys, s [Heads][16].
template <RowType T, int Heads>
void score_panel(const float* q, const std::uint8_t* panel, std::int64_t ahead, int d, float scale, float* s) {
  F32 score[Heads];
  score_keys<T>(q, panel, ahead, d, score);
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { (score[g] * F32::set(scale)).store(s + g * kLanes); });
}

/// Sums of 16·Chunks dims for each head.
template <int Heads, int Chunks>
struct ValueSums {
  F32 of[Heads][Chunks];

  /// Those that lie at acc[g·d ..].
  FASTKV_INLINE void load(const float* acc, int d) {
    each([&](auto g, auto i) __attribute__((always_inline)) { of[g][i] = F32::load(acc + g * d + 16 * i); });
  }
  FASTKV_INLINE void store(float* acc, int d) const {
    each([&](auto g, auto i) __attribute__((always_inline)) { of[g][i].store(acc + g * d + 16 * i); });
  }
  /// += weight[g · ldw] · the values at `at`.
  template <RowType T>
  FASTKV_INLINE void add(const std::uint8_t* row, int c, const float* weight, std::int64_t ldw) {
    F32 v[Chunks];
    load_row<T, Chunks>(row, c, v);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 w = F32::set(weight[g * ldw]);
      unroll<Chunks>([&](auto i) __attribute__((always_inline)) { of[g][i] = fma(w, v[i], of[g][i]); });
    });
  }

 private:
  template <class Fn>
  FASTKV_INLINE static void each(Fn&& fn) {
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      unroll<Chunks>([&](auto i) __attribute__((always_inline)) { fn(g, i); });
    });
  }
};

/// total += Σ_j p[g·16 + j] · 16·Chunks dims from c of value[j] over j < n ≤ 16. Fetches as many dims of what lies
/// kRowsAhead behind.
template <RowType T, int Heads, int Chunks>
FASTKV_INLINE void add_values(const float* p, const std::uint8_t* values, std::size_t stride, std::int64_t n, int c,
                              ValueSums<Heads, Chunks>& total) {
  // of two rows, in whole lines
  constexpr int kBytes = (2 * 16 * Chunks * (T == RowType::f32 ? 4 : T == RowType::q8_0 ? 1 : 2) + 63) / 64 * 64;
  const auto add_two = [&](std::int64_t j) __attribute__((always_inline)) {
    fetch<kBytes>(values + kRowsAhead + c / (16 * Chunks) * kBytes);
    total.template add<T>(values, c, p + j, kLanes);
    total.template add<T>(values + stride, c, p + j + 1, kLanes);
    values += 2 * stride;
  };
  if (n == kLanes) {
    for (int j = 0; j < kLanes; j += 2) add_two(j);
    return;
  }
  std::int64_t j = 0;
  for (; j + 2 <= n; j += 2) add_two(j);
  if (j < n) total.template add<T>(values, c, p + j, kLanes);
}

/// The sums of Heads heads over values of d dims in memory, acc [Heads, d].
template <RowType T, int Heads>
struct ValueSumsInMemory {
  float* acc;
  int d;

  void add(const float* p, const std::uint8_t* values, std::size_t stride, std::int64_t n) {
    const auto add_chunks = [&](auto chunks, int c) __attribute__((always_inline)) {
      ValueSums<Heads, decltype(chunks)::value> total;
      total.load(acc + c, d);
      add_values<T>(p, values, stride, n, c, total);
      total.store(acc + c, d);
    };
    int c = 0;
    for (; c + 16 * kValueChunks <= d; c += 16 * kValueChunks) add_chunks(Index<kValueChunks>{}, c);
    for (; c + 16 <= d; c += 16) add_chunks(Index<1>{}, c);
    if constexpr (T != RowType::q8_0) {
      for (int g = 0; c < d && g < Heads; ++g) {
        F32 total = load_first(acc + g * d + c, d - c);
        for (std::int64_t j = 0; j < n; ++j)
          total =
              fma(F32::set(p[g * kLanes + j]), load_row_first<T>(values + std::size_t(j) * stride, c, d - c), total);
        store_first(total, acc + g * d + c, d - c);
      }
    }
  }
  void scale(int g, float factor) {
    for (int i = 0; i < d; ++i) acc[g * d + i] *= factor;
  }
};
/// The same in registers, where they hold d dims: a tenth less work.
template <RowType T, int Heads>
struct ValueSumsInRegisters {
  ValueSums<Heads, kValueChunks> total;

  FASTKV_INLINE void add(const float* p, const std::uint8_t* values, std::size_t stride, std::int64_t n) {
    add_values<T>(p, values, stride, n, 0, total);
  }
  FASTKV_INLINE void scale(int g, float factor) {
    for (F32& sum : total.of[g]) sum = sum * F32::set(factor);
  }
};

using ScorePanel = void (*)(const float*, const std::uint8_t*, std::int64_t, int, float, float*);

/// An online softmax over a maximum that may be up to kScoreSlack too low. Scores of 16 keys are made one panel before
/// their values are read: both products are independent, memory is asked for keys and values in turns without a stop,
/// and where a panel has half a page, those of heads of 64 in 16 bits, the prefetchers of the two start anew at
/// different times. Two passes, keys and then values of 1,024 rows, came at 85 % of the read loop; this at 100 %,
/// without being a panel ahead at 93 %.
template <int Heads, class Sums>
FASTKV_INLINE void attend_rows_as(const CachedRows& rows, const float* q, float scale, ScorePanel score, Sums& values,
                                  float* max_out, float* sum_out) {
  const std::int64_t n = rows.n, panel = std::int64_t(kLanes * row_bytes(rows.k_type, rows.d)),
                     block = kLanes * std::int64_t(rows.stride), panels = (n + kLanes - 1) / kLanes;
  const auto* key_bytes = static_cast<const std::uint8_t*>(rows.keys);
  const auto* value_bytes = static_cast<const std::uint8_t*>(rows.values);
  alignas(64) float s[2][Heads * kLanes];
  // of the j-th of so many bytes: where what is read kRowsAhead behind them lies in `next`, negative: before it
  const auto in_next = [&](std::int64_t j, std::int64_t bytes) { return kRowsAhead - (panels - j) * bytes; };
  const auto score_of = [&](std::int64_t j) __attribute__((always_inline)) {
    const std::uint8_t* at = key_bytes + j * panel;
    const std::int64_t next = in_next(j, panel);
    score(q, at,
          next < 0 || !rows.next_keys ? kRowsAhead : static_cast<const std::uint8_t*>(rows.next_keys) + next - at,
          rows.d, scale, s[j % 2]);
  };
  F32 top[Heads], sum[Heads];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { top[g] = F32::set(-kInfinity), sum[g] = F32::set(0.f); });
  score_of(0);
  for (std::int64_t j = 0; j < panels; ++j) {
    float* p = s[j % 2];
    const std::int64_t left = n - j * kLanes < kLanes ? n - j * kLanes : kLanes;
    F32 x[Heads], above = F32::set(-kInfinity);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      for (std::int64_t i = left; i < kLanes; ++i) p[g * kLanes + i] = p[g * kLanes];
      x[g] = F32::load(p + g * kLanes);
      above = max(above, x[g] - top[g]);
    });
    if (max(above) > kScoreSlack) [[unlikely]] {
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        const float most = max(x[g]), before = max(top[g]);
        if (!(most - before > kScoreSlack)) return;  // whatever the other heads: results do not depend on the group
        const float factor = exp(before - most);
        top[g] = F32::set(most);
        sum[g] = sum[g] * F32::set(factor);
        values.scale(g, factor);
      });
    }
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 weight = exp(x[g] - top[g]);
      weight.store(p + g * kLanes);
      sum[g] = sum[g] + (left < kLanes ? keep_first(weight, left) : weight);
    });
    if (j + 1 < panels) score_of(j + 1);
    // fetches kRowsAhead in any case: with a distance in a register rows came at 91 % instead of 99
    values.add(p, value_bytes + j * block, rows.stride, left);
    if (const std::int64_t next = in_next(j, block); fetches_ahead && next >= 0 && rows.next_values)
      for (std::int64_t i = 0; i < block; i += 64)
        _mm_prefetch(static_cast<const char*>(rows.next_values) + next + i, _MM_HINT_T0);
  }
  unroll<Heads>([&](auto g)
                    __attribute__((always_inline)) { max_out[g] = max(top[g]), sum_out[g] = simd::sum(sum[g]); });
}

template <RowType V, int Heads>
void attend_values_as(const CachedRows& rows, const float* q, float scale, ScorePanel score, float* out, float* max,
                      float* sum) {
  std::memset(out, 0, std::size_t(Heads * rows.d) * sizeof(float));
  if (rows.d == 16 * kValueChunks) {
    ValueSumsInRegisters<V, Heads> values;
    values.total.load(out, rows.d);
    attend_rows_as<Heads>(rows, q, scale, score, values, max, sum);
    values.total.store(out, rows.d);
  } else {
    ValueSumsInMemory<V, Heads> values{out, rows.d};
    attend_rows_as<Heads>(rows, q, scale, score, values, max, sum);
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

void attend_keys(RowType type, const float* q, int group, const void* keys, std::int64_t n, int d, float scale,
                 float* out, std::int64_t ldo) {
  for (int g = 0; g < group; g += kHeads) {
    with_type(
        type, [&](auto t) __attribute__((always_inline)) {
          with_count<kHeads>(
              group - g < kHeads ? group - g : kHeads, [&](auto heads) __attribute__((always_inline)) {
                attend_keys_as<RowType(decltype(t)::value), decltype(heads)::value>(
                    q + std::int64_t(g) * d, static_cast<const std::uint8_t*>(keys), n, d, scale, out + g * ldo, ldo);
              });
        });
  }
}

void attend_rows(const CachedRows& rows, const float* q, int group, float scale, float* out, float* max, float* sum) {
  for (int g = 0; g < group; g += kHeads) {
    with_count<kHeads>(
        group - g < kHeads ? group - g : kHeads, [&](auto heads) __attribute__((always_inline)) {
          constexpr int kCount = decltype(heads)::value;
          ScorePanel score = nullptr;
          with_type(
              rows.k_type, [&](auto t) __attribute__((always_inline)) {
                score = score_panel<RowType(decltype(t)::value), kCount>;
              });
          const std::int64_t at = std::int64_t(g) * rows.d;
          with_type(
              rows.v_type, [&](auto t) __attribute__((always_inline)) {
                attend_values_as<RowType(decltype(t)::value), kCount>(rows, q + at, scale, score, out + at, max + g,
                                                                      sum + g);
              });
        });
  }
}

void decode_row(RowType type, const void* row, int d, float* out) {
  with_type(type, [&](auto t) {
    constexpr RowType kType = RowType(decltype(t)::value);
    const auto* from = static_cast<const std::uint8_t*>(row);
    int i = 0;
    for (; i + 16 <= d; i += 16) load_row<kType>(from, i).store(out + i);
    if constexpr (kType != RowType::q8_0)
      if (i < d) store_first(load_row_first<kType>(from, i, d - i), out + i, d - i);
  });
}

}  // namespace
}  // namespace fastkv::simd
