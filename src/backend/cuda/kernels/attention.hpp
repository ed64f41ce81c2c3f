// Attention of prompt rows and of generated tokens.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "fastkv/options.hpp"

namespace fastkv::cuda {

using bf16 = __nv_bfloat16;
/// Of a prompt's queries, keys and values: rounded to bfloat16, queries and keys moved logits more than all weights and
/// activations together (stories260K against its reference traces: 0.16 to 0.29, so 0.10 to 0.15).
using f16 = __half;

/// H query heads, K key/value heads, head size d; scores are scaled by `scale`.
struct AttentionShape {
  int heads = 0, heads_kv = 0, d = 0;
  float scale = 0;
  int group() const { return heads / heads_kv; }
};

inline constexpr int kMaxHeadDim = 128;  ///< multiples of 8 up to here

/// out [m][H][d] = softmax(scale · q·Kᵀ) · V with an online softmax in float32 on tensor cores; q [m][H][d], k and v
/// [K][n][d]. Row i sees keys 0 .. rows[i], or 0 .. first + i if rows is null (rows ascending: original indices).
void attention_prefill(cudaStream_t stream, const AttentionShape& shape, const f16* q, const std::int32_t* rows,
                       std::int64_t first, std::int64_t m, const f16* k, const f16* v, std::int64_t n, bf16* out);

/// What one layer's cache looks like to decode: stored heads one after another, each with its own number of rows.
struct CacheView {
  const std::byte* k = nullptr;  ///< rows of k_stride bytes
  const std::byte* v = nullptr;
  CacheType k_type = CacheType::bf16, v_type = CacheType::bf16;  ///< f32, f16, bf16 or q8_0
  std::int64_t k_stride = 0, v_stride = 0;
  const std::int64_t* offsets = nullptr;  ///< device [stored heads]: first row of each
  const std::int32_t* kept = nullptr;     ///< device [stored heads]: rows of the prompt
  int stored_heads = 0;                   ///< K or H
  std::int64_t capacity = 0;              ///< most rows of any head, room for generated tokens included
};

/// Bytes of partial results that attention_decode() needs.
std::size_t attention_decode_bytes(const AttentionShape& shape, std::int64_t capacity);

/// What attention takes of a generated token, float32: q [H][d] and k [K][d] rotated, v [K][d].
struct TokenRows {
  const float *q = nullptr, *k = nullptr, *v = nullptr;
};

/// Row kept[s] + *appended − 1 of each stored head s becomes the token's k and v; then out [H][d] bfloat16 of its q
/// over head s's first kept[s] + *appended rows, split over blocks by `capacity` and combined in a fixed order.
/// `appended`: device, read when the kernel runs, so that a captured graph serves every step.
void attention_decode(cudaStream_t stream, const AttentionShape& shape, const TokenRows& token, const CacheView& cache,
                      const std::int32_t* appended, void* partial, bf16* out);

}  // namespace fastkv::cuda
