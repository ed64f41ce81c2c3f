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
/// of the read loop with 1024, 100 % with 2304, 102 % with 3072, 87 % with 4096, keys and values apart as they lay then.
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

/// Scores of 16 keys, unscaled: a key's sum runs over its dims in order, whatever the other keys.
template <RowType T, int Heads>
FASTKV_INLINE void score_keys(const float* q, const std::uint8_t* at, int d, F32 (&score)[Heads]) {
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { score[g] = F32::set(0.f); });
  const auto finish = [&](const ScoreSums<Heads>& sums, F32 scale) __attribute__((always_inline)) {
    unroll<Heads>([&](auto g) __attribute__((always_inline)) { score[g] = fma(scale, sums.total(g), score[g]); });
  };
  if constexpr (T == RowType::q8_0) {
    for (int i = 0; i < d; i += 32) {  // scales of 16 keys, then 32 dims
      fetch<2 * kLanes + 32 * kLanes>(at + kRowsAhead);
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
      fetch<kTurnDims * kDimBytes>(at + kRowsAhead);
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
    score_keys<T>(q, keys, d, score);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 scaled = score[g] * F32::set(scale);
      float* to = out + g * ldo + j;
      n - j >= kLanes ? scaled.store(to) : store_first(scaled, to, n - j);
    });
  }
}

/// The scores of a panel's 16 keys, s [Heads][kCacheRows].
template <RowType T, int Heads>
void score_panel(const void* q, const std::uint8_t* panel, int d, float scale, float* s) {
  F32 score[Heads];
  score_keys<T>(static_cast<const float*>(q), panel, d, score);
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { (score[g] * F32::set(scale)).store(s + g * kCacheRows); });
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
  /// += weight[g · kCacheRows] · the values c .. of `row`.
  template <RowType T>
  FASTKV_INLINE void add(const std::uint8_t* row, int c, const float* weight) {
    F32 v[Chunks];
    load_row<T, Chunks>(row, c, v);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 w = F32::set(weight[g * kCacheRows]);
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

/// acc[g·d ..] += Σ_j p[g·kCacheRows + j] · the values c .. c+16·Chunks−1 of row j < n; rows of `bytes`, read in pieces
/// of so many values. Each fetches its part of what lies kRowsAhead behind.
template <RowType T, int Heads, int Chunks>
FASTKV_INLINE void add_dims(const float* p, const std::uint8_t* rows, std::size_t bytes, std::int64_t n, int c, int d,
                            float* acc) {
  // of two rows, in whole lines
  constexpr int kBytes = (2 * 16 * Chunks * (T == RowType::f32 ? 4 : T == RowType::q8_0 ? 1 : 2) + 63) / 64 * 64;
  ValueSums<Heads, Chunks> total;
  total.load(acc, d);
  std::int64_t j = 0;
  for (; j + 2 <= n; j += 2, rows += 2 * bytes) {
    fetch<kBytes>(rows + kRowsAhead + c / (16 * Chunks) * kBytes);
    total.template add<T>(rows, c, p + j);
    total.template add<T>(rows + bytes, c, p + j + 1);
  }
  if (j < n) total.template add<T>(rows, c, p + j);
  total.store(acc, d);
}

/// acc [Heads, d] += Σ_j p[g·kCacheRows + j] · value[j] over j < n rows of a block.
template <RowType T, int Heads>
void add_values(const void* weights, const std::uint8_t* values, std::int64_t n, int d, float* acc) {
  const float* p = static_cast<const float*>(weights);
  for (int first = 0; first < d; first += kValueDims) {
    const int dims = value_dims(d, first);
    const std::size_t bytes = row_bytes(T, dims);
    const auto add_chunks = [&](auto chunks, int c) __attribute__((always_inline)) {
      add_dims<T, Heads, decltype(chunks)::value>(p, values, bytes, n, c, d, acc + first + c);
    };
    int c = 0;
    for (; c + 16 * kValueChunks <= dims; c += 16 * kValueChunks) add_chunks(Index<kValueChunks>{}, c);
    for (; c + 16 <= dims; c += 16) add_chunks(Index<1>{}, c);
    if constexpr (T != RowType::q8_0) {
      for (int g = 0; c < dims && g < Heads; ++g) {
        float* const at = acc + g * d + first + c;
        F32 total = load_first(at, dims - c);
        for (std::int64_t j = 0; j < n; ++j)
          total = fma(F32::set(p[g * kCacheRows + j]), load_row_first<T>(values + std::size_t(j) * bytes, c, dims - c),
                      total);
        store_first(total, at, dims - c);
      }
    }
    values += kCacheRows * bytes;
  }
}

/// Weights of a block in float32.
struct FloatWeights {
  using Element = float;
  /// e^x to p, and what was stored.
  FASTKV_INLINE static F32 put(F32 x, float* p, std::int64_t n) {
    const F32 weight = n < kLanes ? keep_first(exp(x), n) : exp(x);
    weight.store(p);
    return weight;
  }
};

/// How a level computes: the scores of a panel, s [Heads][kCacheRows], and a block's weighted values.
using ScorePanel = void (*)(const void* q, const std::uint8_t* panel, int d, float scale, float* s);
using AddValues = void (*)(const void* p, const std::uint8_t* values, std::int64_t n, int d, float* acc);

/// An online softmax over a maximum that may be up to kScoreSlack too low, block by block: all scores, all weights, all
/// values, so that the weights of the last panel only are waited for. out [Heads, d].
template <int Heads, class Weights>
void attend_blocks(const CachedRows& rows, const void* q, float scale, ScorePanel score, AddValues add, float* out,
                   float* max_out, float* sum_out) {
  const std::size_t panel = kLanes * row_bytes(rows.k_type, rows.d),
                    block = cache_block_bytes(rows.k_type, rows.v_type, rows.d);
  const auto* at = static_cast<const std::uint8_t*>(rows.blocks);
  alignas(64) float s[Heads * kCacheRows];
  alignas(64) typename Weights::Element p[Heads * kCacheRows];
  std::memset(out, 0, std::size_t(Heads * rows.d) * sizeof(float));
  F32 top[Heads], sum[Heads];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { top[g] = F32::set(-kInfinity), sum[g] = F32::set(0.f); });
  for (std::int64_t first = 0; first < rows.n; first += kCacheRows, at += block) {
    const std::int64_t n = rows.n - first < kCacheRows ? rows.n - first : kCacheRows;
    const std::int64_t panels = (n + kLanes - 1) / kLanes;
    for (std::int64_t k = 0; k < panels; ++k) {
      if (fetches_ahead && rows.next && first + kCacheRows >= rows.n) {  // a part of the next ones' begin
        const std::int64_t part = kRowsAhead / panels / 64 * 64;
        for (std::int64_t i = 0; i < part; i += 64)
          _mm_prefetch(static_cast<const char*>(rows.next) + k * part + i, _MM_HINT_T0);
      }
      score(q, at + std::size_t(k) * panel, rows.d, scale, s + k * kLanes);
    }
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      for (std::int64_t j = n; j < panels * kLanes; ++j) s[g * kCacheRows + j] = s[g * kCacheRows];
    });
    const auto highest = [&](int g) __attribute__((always_inline)) {
      F32 x = F32::load(s + g * kCacheRows);
      for (std::int64_t k = 1; k < panels; ++k) x = max(x, F32::load(s + g * kCacheRows + k * kLanes));
      return x;
    };
    F32 above = F32::set(-kInfinity);
    unroll<Heads>([&](auto g) __attribute__((always_inline)) { above = max(above, highest(g) - top[g]); });
    if (max(above) > kScoreSlack) [[unlikely]] {
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        const float most = max(highest(g)), before = max(top[g]);
        if (!(most - before > kScoreSlack)) return;  // whatever the other heads: results do not depend on the group
        const float factor = exp(before - most);
        top[g] = F32::set(most);
        sum[g] = sum[g] * F32::set(factor);
        for (int i = 0; i < rows.d; ++i) out[g * rows.d + i] *= factor;
      });
    }
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      for (std::int64_t j = 0; j < n; j += kLanes)
        sum[g] = sum[g] + Weights::put(F32::load(s + g * kCacheRows + j) - top[g], p + g * kCacheRows + j, n - j);
    });
    add(p, at + kCacheRows * row_bytes(rows.k_type, rows.d), n, rows.d, out);
  }
  unroll<Heads>([&](auto g)
                    __attribute__((always_inline)) { max_out[g] = max(top[g]), sum_out[g] = simd::sum(sum[g]); });
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
          AddValues add = nullptr;
          with_type(
              rows.k_type, [&](auto t) __attribute__((always_inline)) {
                score = score_panel<RowType(decltype(t)::value), kCount>;
              });
          with_type(
              rows.v_type, [&](auto t) __attribute__((always_inline)) {
                add = add_values<RowType(decltype(t)::value), kCount>;
              });
          const std::int64_t at = std::int64_t(g) * rows.d;
          attend_blocks<kCount, FloatWeights>(rows, q + at, scale, score, add, out + at, max + g, sum + g);
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
