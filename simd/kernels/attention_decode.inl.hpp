// Scores and weighted sums over cached rows of any element type: the query heads of a group share each row's decoding.
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
inline constexpr std::int64_t kValueRows = 16;                   ///< rows of a run that pass all chunks while in L1

/// Fetches the Bytes that lie Ahead bytes behind `from`.
template <int Bytes, std::size_t Ahead>
FASTKV_INLINE void fetch(const std::uint8_t* from) {
  unroll<Bytes / 64>([&](auto line) __attribute__((always_inline)) {
    _mm_prefetch(reinterpret_cast<const char*>(from + Ahead + line * 64), _MM_HINT_T0);
  });
}
/// On two Granite Rapids cores float16 keys came at 34.8 GB/s, with 768 or 1536 at 32.7; in turns of 16 dims at 31.4.
inline constexpr std::size_t kKeysAhead = 2048;
/// float16 values of heads of 64 and 128 come at 96 and 90 % of a plain read, of 128 with 768 at 72 %.
inline constexpr std::size_t kValuesAhead = 768, kWideValuesAhead = 2048;

/// Panels of keys that are scored at once: as many as leave the sums of kHeads heads in registers.
inline constexpr int kKeyPanels = kVectorBits == 512 ? kKeyStreams : 1;
inline constexpr int kTurnDims = 8;  ///< dims of a panel between two looks at the other one

/// Dim i of a panel's 16 keys, of q8_0 without their scales.
template <RowType T>
FASTKV_INLINE F32 load_keys(const std::uint8_t* panel, int i) {
  if constexpr (T == RowType::f32) return F32::load(reinterpret_cast<const float*>(panel) + i * kLanes);
  if constexpr (T == RowType::f16) return F32::from_f16(reinterpret_cast<const std::uint16_t*>(panel) + i * kLanes);
  if constexpr (T == RowType::bf16) return F32::from_bf16(reinterpret_cast<const std::uint16_t*>(panel) + i * kLanes);
  return F32::from_i8(reinterpret_cast<const std::int8_t*>(panel) + i * kLanes);
}

/// acc[g][p] += q[g] · keys of panel p over the dims [begin, begin + Dims), which lie at `at`.
template <RowType T, int Dims, int Heads, int N>
FASTKV_INLINE void add_dims(const float* q, int d, const std::uint8_t* const (&at)[N], int begin,
                            F32 (&acc)[Heads][N]) {
  unroll<Dims>([&](auto i) __attribute__((always_inline)) {
    F32 key[N];
    unroll<N>([&](auto p) __attribute__((always_inline)) { key[p] = load_keys<T>(at[p], i); });
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 x = F32::set(q[g * d + begin + i]);
      unroll<N>([&](auto p) __attribute__((always_inline)) { acc[g][p] = fma(x, key[p], acc[g][p]); });
    });
  });
}

template <int Heads, int N>
FASTKV_INLINE void clear(F32 (&acc)[Heads][N]) {
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<N>([&](auto p) __attribute__((always_inline)) { acc[g][p] = F32::set(0.f); });
  });
}

/// Scores of N panels of 16 keys, unscaled: a key's sum runs over its dims in order, whatever the other keys.
template <RowType T, int Heads, int N>
FASTKV_INLINE void score_panels(const float* q, const std::uint8_t* const (&panels)[N], int d, F32 (&acc)[Heads][N]) {
  const std::uint8_t* at[N];
  unroll<N>([&](auto p) __attribute__((always_inline)) { at[p] = panels[p]; });
  clear(acc);
  if constexpr (T == RowType::q8_0) {
    for (int i = 0; i < d; i += 32) {  // scales of 16 keys, then 32 dims
      F32 sum[Heads][N], scale[N];
      clear(sum);
      unroll<N>([&](auto p) __attribute__((always_inline)) {
        fetch<576, kKeysAhead>(at[p]);
        scale[p] = F32::from_f16(reinterpret_cast<const std::uint16_t*>(at[p]));
        at[p] += 2 * kLanes;
      });
      for (int part = 0; part < 32; part += kTurnDims) {
        add_dims<T, kTurnDims>(q, d, at, i + part, sum);
        unroll<N>([&](auto p) __attribute__((always_inline)) { at[p] += kTurnDims * kLanes; });
      }
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        unroll<N>([&](auto p) __attribute__((always_inline)) { acc[g][p] = fma(scale[p], sum[g][p], acc[g][p]); });
      });
    }
  } else {
    constexpr int kDimBytes = kLanes * (T == RowType::f32 ? 4 : 2);
    int i = 0;
    for (; i + kTurnDims <= d; i += kTurnDims) {
      unroll<N>([&](auto p) __attribute__((always_inline)) { fetch<kTurnDims * kDimBytes, kKeysAhead>(at[p]); });
      add_dims<T, kTurnDims>(q, d, at, i, acc);
      unroll<N>([&](auto p) __attribute__((always_inline)) { at[p] += kTurnDims * kDimBytes; });
    }
    for (; i < d; ++i) {
      add_dims<T, 1>(q, d, at, i, acc);
      unroll<N>([&](auto p) __attribute__((always_inline)) { at[p] += kDimBytes; });
    }
  }
}

template <RowType T, int Heads, int N>
FASTKV_INLINE void attend_panels(const float* q, const std::uint8_t* keys, std::size_t panel_bytes,
                                 const std::int64_t (&at)[N], std::int64_t n, int d, float scale, float* out,
                                 std::int64_t ldo) {
  const std::uint8_t* panels[N];
  unroll<N>([&](auto p) __attribute__((always_inline)) { panels[p] = keys + std::size_t(at[p]) * panel_bytes; });
  F32 acc[Heads][N];
  score_panels<T>(q, panels, d, acc);
  unroll<N>([&](auto p) __attribute__((always_inline)) {
    const std::int64_t first = at[p] * kLanes, lanes = n - first;
    unroll<Heads>([&](auto g) __attribute__((always_inline)) {
      const F32 score = acc[g][p] * F32::set(scale);
      float* to = out + g * ldo + first;
      lanes >= kLanes ? score.store(to) : store_first(score, to, lanes);
    });
  });
}

template <RowType T, int Heads>
void attend_keys_as(const float* q, const std::uint8_t* keys, std::int64_t n, int d, float scale, float* out,
                    std::int64_t ldo) {
  static_assert(kKeyStreams == 2);
  const std::size_t bytes = kLanes * row_bytes(T, d);
  const std::int64_t panels = (n + kLanes - 1) / kLanes, run = (panels + 1) / 2;
  const auto attend = [&](const auto& at) __attribute__((always_inline)) {
    attend_panels<T, Heads>(q, keys, bytes, at, n, d, scale, out, ldo);
  };
  for (std::int64_t j = 0; j < run; ++j) {
    const std::int64_t first[] = {j}, second[] = {j + run}, both[] = {j, j + run};
    if (kKeyPanels == 2 && j + run < panels) {
      attend(both);
      continue;
    }
    attend(first);
    if (j + run < panels) attend(second);
  }
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

/// total += Σ p[g][j] · 16·Chunks dims from c of value[j] over j < rows and, after every second one, the same two of
/// the run behind if j < pairs. Of the rows Ahead bytes ahead it fetches as many dims.
template <RowType T, std::size_t Ahead, int Heads, int Chunks>
FASTKV_INLINE void sum_values(const float* p, std::int64_t ldp, const std::uint8_t* values, std::size_t stride,
                              std::int64_t run, std::int64_t rows, std::int64_t pairs, int c,
                              ValueSums<Heads, Chunks>& total) {
  // of two rows, in whole lines
  constexpr int kBytes = (2 * 16 * Chunks * (T == RowType::f32 ? 4 : T == RowType::q8_0 ? 1 : 2) + 63) / 64 * 64;
  const auto add = [&](std::int64_t j) __attribute__((always_inline)) {
    total.template add<T>(values + std::size_t(j) * stride, c, p + j, ldp);
  };
  const auto add_two = [&](std::int64_t j) __attribute__((always_inline)) {
    const std::size_t fetched = std::size_t(c / (16 * Chunks) * kBytes);
    fetch<kBytes, Ahead>(values + std::size_t(j) * stride + fetched);
    add(j), add(j + 1);
  };
  std::int64_t j = 0;
  for (; j + 2 <= pairs; j += 2) add_two(j), add_two(j + run);
  for (; j < pairs; ++j) add(j), add(j + run);
  for (; j + 2 <= rows; j += 2) add_two(j);
  for (; j < rows; ++j) add(j);
}

/// s[g][j] becomes exp(s[g][j] − max[g]) for j < n ≤ 16, which total takes.
template <int Heads>
FASTKV_INLINE void exponentiate(float* s, std::int64_t lds, std::int64_t n, const float* max, F32 (&total)[Heads]) {
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    float* x = s + g * lds;
    if (n == kLanes) {
      const F32 e = exp(F32::load(x) - F32::set(max[g]));
      e.store(x);
      total[g] = total[g] + e;
    } else {
      const F32 e = keep_first(exp(load_first(x, n) - F32::set(max[g])), n);
      store_first(e, x, n);
      total[g] = total[g] + e;
    }
  });
}

/// Exponentials are made 16 rows at a time, between their values: memory does not wait for them.
template <RowType T, int Heads>
void attend_values_as(float* s, std::int64_t lds, const float* max, const std::uint8_t* values, std::size_t stride,
                      std::int64_t n, int d, float* acc, float* sums) {
  static_assert(kValueStreams == 2 && kValueRows == kLanes);
  const std::int64_t run = (n + 2 * kValueRows - 1) / (2 * kValueRows) * kValueRows;
  F32 weights[Heads];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { weights[g] = F32::set(0.f); });
  /// sum(their weights, they, how many, how many of the run behind) for 16 rows after another.
  const auto for_blocks = [&](auto&& sum) __attribute__((always_inline)) {
    for (std::int64_t j = 0; j < run; j += kValueRows) {
      const auto rows_of = [](std::int64_t left) { return left < 0 ? 0 : left < kValueRows ? left : kValueRows; };
      const std::int64_t rows = rows_of(n - j), pairs = rows_of(n - run - j);
      exponentiate(s + j, lds, rows, max, weights);
      if (pairs > 0) exponentiate(s + run + j, lds, pairs, max, weights);
      sum(s + j, values + std::size_t(j) * stride, rows, pairs);
    }
  };
  if (d == 16 * kValueChunks) {  // sums that stay in registers
    ValueSums<Heads, kValueChunks> total;
    total.load(acc, d);
    for_blocks([&](const float* p, const std::uint8_t* block, std::int64_t rows, std::int64_t pairs) __attribute__((
        always_inline)) { sum_values<T, kValuesAhead>(p, lds, block, stride, run, rows, pairs, 0, total); });
    total.store(acc, d);
  } else {
    for_blocks([&](const float* p, const std::uint8_t* block, std::int64_t rows,
                   std::int64_t pairs) __attribute__((always_inline)) {
      const auto sum_chunks = [&](auto chunks, int c) __attribute__((always_inline)) {
        ValueSums<Heads, decltype(chunks)::value> total;
        total.load(acc + c, d);
        sum_values<T, kWideValuesAhead>(p, lds, block, stride, run, rows, pairs, c, total);
        total.store(acc + c, d);
      };
      int c = 0;
      for (; c + 16 * kValueChunks <= d; c += 16 * kValueChunks) sum_chunks(Index<kValueChunks>{}, c);
      for (; c + 16 <= d; c += 16) sum_chunks(Index<1>{}, c);
      if constexpr (T != RowType::q8_0) {
        for (int g = 0; c < d && g < Heads; ++g) {
          F32 total = load_first(acc + g * d + c, d - c);
          for (std::int64_t j = 0; j < rows + pairs; ++j) {
            const std::int64_t at = j < rows ? j : j - rows + run;
            total =
                fma(F32::set(p[g * lds + at]), load_row_first<T>(block + std::size_t(at) * stride, c, d - c), total);
          }
          store_first(total, acc + g * d + c, d - c);
        }
      }
    });
  }
  unroll<Heads>([&](auto g) __attribute__((always_inline)) { sums[g] = sum(weights[g]); });
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

void attend_values(RowType type, float* s, std::int64_t lds, int group, const float* max, const void* values,
                   std::size_t stride, std::int64_t n, int d, float* acc, float* sum) {
  for (int g = 0; g < group; g += kHeads) {
    with_type(
        type, [&](auto t) __attribute__((always_inline)) {
          with_count<kHeads>(
              group - g < kHeads ? group - g : kHeads, [&](auto heads) __attribute__((always_inline)) {
                attend_values_as<RowType(decltype(t)::value), decltype(heads)::value>(
                    s + g * lds, lds, max + g, static_cast<const std::uint8_t*>(values), stride, n, d,
                    acc + std::int64_t(g) * d, sum + g);
              });
        });
  }
}

}  // namespace
}  // namespace fastkv::simd
