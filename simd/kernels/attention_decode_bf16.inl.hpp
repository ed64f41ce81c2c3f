// Attention over cached rows of 16 bits by bfloat16 dot products: two products a lane and instruction, for AVX512-BF16.
#pragma once

#include "simd/kernels/attention_decode.inl.hpp"

namespace fastkv::simd {
namespace {

/// Float16 becomes bfloat16 by a shift, which keeps the exponent field, whose bias is 112 less: values come out 2^-112
/// times what they are. Weights make up for it, 2^112 times what they are; queries, which may be larger, for half of
/// it.
template <RowType T>
inline constexpr int kExponentBehind = T == RowType::f16 ? 112 : 0;

/// 32 values as bfloat16, 2^-kExponentBehind times; of float16 rounded to nearest, halves away from zero.
template <RowType T>
FASTKV_INLINE I32 narrow_words(I32 words) {
  if constexpr (T == RowType::bf16) return words;
  // (x · 2^12 + 2^14) >> 15 of each word as an integer, the sign first; then only the sign of its four copies
  const __m512i shifted = _mm512_mulhrs_epi16(words.v, _mm512_set1_epi16(1 << 12));
  return {_mm512_and_si512(shifted, _mm512_set1_epi16(short(0x8fff)))};
}
/// 16 words from each address.
FASTKV_INLINE I32 load_halves(const std::uint8_t* lo, const std::uint8_t* hi) {
  return {_mm512_inserti64x4(_mm512_castsi256_si512(F32::words(lo)), F32::words(hi), 1)};
}
/// acc + the pair at `a` times the pairs of w. As asm: g++ 12 makes the broadcast an instruction of its own.
FASTKV_INLINE F32 dot_bf16_with(F32 acc, I32 w, const std::uint16_t* a) {
  __m512 sum = acc.v;
  asm("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(*reinterpret_cast<const std::uint16_t(*)[2]>(a)), "v"(w.v));
  return {Batch(sum)};
}

/// q [Heads, d] bfloat16.
template <RowType T, int Heads>
void score_panel_bf16(const void* queries, const std::uint8_t* panel, int d, float scale, float* s) {
  const auto* q = static_cast<const std::uint16_t*>(queries);
  F32 sum[Heads][kChains];
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    unroll<kChains>([&](auto c) __attribute__((always_inline)) { sum[g][c] = F32::set(0.f); });
  });
  for (int i = 0; i < d; i += kTurnDims, panel += kTurnDims * kLanes * 2) {
    fetch<kTurnDims * kLanes * 2>(panel + kRowsAhead);
    unroll<kTurnDims / 2>([&](auto pair) __attribute__((always_inline)) {
      const I32 keys = zip_halves(narrow_words<T>(I32::load(panel + pair * kLanes * 4)));
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        F32& to = sum[g][pair % kChains];
        to = dot_bf16_with(to, keys, q + g * d + i + 2 * pair);
      });
    });
  }
  unroll<Heads>([&](auto g) __attribute__((always_inline)) {
    ((sum[g][0] + sum[g][1]) * F32::set(scale)).store(s + g * kCacheRows);
  });
}

/// acc[g·d ..] += Σ_j p[g·kCacheRows + j] · the values c .. c+16·Chunks−1 of row j < n, rows of `bytes`.
template <RowType T, int Heads, int Chunks>
FASTKV_INLINE void add_dims_bf16(const std::uint16_t* p, const std::uint8_t* rows, std::size_t bytes, std::int64_t n,
                                 int c, int d, float* acc) {
  ValueSums<Heads, Chunks> total;
  total.load(acc, d);
  const auto add_two = [&](const std::uint8_t* even, const std::uint8_t* odd, std::int64_t j)
      __attribute__((always_inline)) {
    unroll<Chunks>([&](auto i) __attribute__((always_inline)) {
      const I32 v = zip_halves(narrow_words<T>(load_halves(even + 2 * c + 32 * i, odd + 2 * c + 32 * i)));
      unroll<Heads>([&](auto g) __attribute__((always_inline)) {
        total.of[g][i] = dot_bf16_with(total.of[g][i], v, p + g * kCacheRows + j);
      });
    });
  };
  std::int64_t j = 0;
  for (; j + 2 <= n; j += 2, rows += 2 * bytes) {
    fetch<64 * Chunks>(rows + kRowsAhead + 4 * c);
    add_two(rows, rows + bytes, j);
  }
  if (j < n) add_two(rows, rows, j);  // p[j + 1] is 0
  total.store(acc, d);
}

template <RowType T, int Heads>
void add_values_bf16(const void* weights, const std::uint8_t* values, std::int64_t n, int d, float* acc) {
  const auto* p = static_cast<const std::uint16_t*>(weights);
  for (int first = 0; first < d; first += kValueDims) {
    const int dims = value_dims(d, first);
    const std::size_t bytes = row_bytes(T, dims);
    int c = 0;
    const auto add_chunks = [&](auto chunks) __attribute__((always_inline)) {
      constexpr int kChunks = decltype(chunks)::value;
      for (; c + 16 * kChunks <= dims; c += 16 * kChunks)
        add_dims_bf16<T, Heads, kChunks>(p, values, bytes, n, c, d, acc + first + c);
    };
    add_chunks(Index<4>{}), add_chunks(Index<2>{}), add_chunks(Index<1>{});
    values += kCacheRows * bytes;
  }
}

/// Weights of a block as bfloat16, 2^Exponent times.
template <int Exponent>
struct NarrowWeights {
  using Element = std::uint16_t;
  FASTKV_INLINE static F32 put(F32 x, std::uint16_t* p, std::int64_t n) {
    F32 weight = exp2<3>(fma(x, F32::set(1.44269504f), F32::set(float(Exponent))));
    if (n < kLanes) weight = keep_first(weight, n);
    store_bf16(weight, p);
    return F32::from_bf16(p) * F32::set(__builtin_ldexpf(1, -Exponent));
  }
};

/// Float32 for heads that are not whole vectors, and for rows of other types.
void attend_rows_bf16(const CachedRows& rows, const float* q, int group, float scale, float* out, float* max,
                      float* sum) {
  const bool narrow = rows.k_type == rows.v_type && (rows.k_type == RowType::f16 || rows.k_type == RowType::bf16);
  if (!narrow || rows.d % kLanes) return attend_rows(rows, q, group, scale, out, max, sum);
  const auto attend = [&](auto type) __attribute__((always_inline)) {
    constexpr RowType T = RowType(decltype(type)::value);
    for (int g = 0; g < group; g += kHeads) {
      with_count<kHeads>(
          group - g < kHeads ? group - g : kHeads, [&](auto heads) __attribute__((always_inline)) {
            constexpr int kCount = decltype(heads)::value;
            const std::int64_t at = std::int64_t(g) * rows.d, all = kCount * rows.d;
            alignas(64) std::uint16_t narrow_q[kCount * 256];
            const float half = __builtin_ldexpf(1, kExponentBehind<T> / 2);
            const F32 factor = F32::set(scale * half);
            for (std::int64_t i = 0; i < all; i += kLanes) store_bf16(F32::load(q + at + i) * factor, narrow_q + i);
            attend_blocks<kCount, NarrowWeights<kExponentBehind<T>>>(rows, narrow_q, half, score_panel_bf16<T, kCount>,
                                                                     add_values_bf16<T, kCount>, out + at, max + g,
                                                                     sum + g);
          });
    }
  };
  rows.k_type == RowType::f16 ? attend(Index<int(RowType::f16)>{}) : attend(Index<int(RowType::bf16)>{});
}

}  // namespace
}  // namespace fastkv::simd
