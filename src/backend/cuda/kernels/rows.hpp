// Kernels on rows of activations: embedding, norms, rotation, gating, gathers. All run in the order of `stream`.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace fastkv::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;

/// x [n, width] float32 = rows ids[n] of table [V, width].
void embed(cudaStream_t stream, const bf16* table, const std::int32_t* ids, std::int64_t n, int width, float* x);

/// out [m, width] = weight ∘ x / sqrt(mean(x²) + eps) of each row of x [m, width] float32, rounded once. The mean is
/// summed in float32 in an order that depends on `width` alone.
void rms_norm(cudaStream_t stream, const float* x, std::int64_t m, int width, const float* weight, float eps,
              bf16* out);

/// Cosines and sines of each position's angles (spec/models.md): table [n][d/2] of {cos, sin} · magnitude, angles in
/// double. inv_freq [d/2].
void rope_table(cudaStream_t stream, const std::int32_t* positions, std::int64_t n, const double* inv_freq, int d,
                float magnitude, float2* table);

/// kv [m][2][K][d] (keys, then values, of m rows) into k, v [K][n][d] at rows first .. first + m, keys rotated by
/// table[first + i]; rounded once, and finite. v null: keys only, kv [m][K][d].
void store_layer_kv(cudaStream_t stream, const float* kv, const float2* table, std::int64_t first, std::int64_t m,
                    std::int64_t n, int heads_kv, int d, f16* k, f16* v);

/// rotated = q [m][heads][d], turned by table [m][d/2]; rounded once, and finite.
void rotate_queries(cudaStream_t stream, const float* q, const float2* table, std::int64_t m, int heads, int d,
                    f16* rotated);

/// out [m, width] = silu(gate) ∘ up of gate_up [m][2][width].
void silu_mul(cudaStream_t stream, const bf16* gate_up, std::int64_t m, int width, bf16* out);

/// to[i] = from[rows[i]], rows of `width` elements.
void gather_rows(cudaStream_t stream, const float* from, const std::int32_t* rows, std::int64_t n, int width,
                 float* to);
void gather_values(cudaStream_t stream, const std::int32_t* from, const std::int32_t* rows, std::int64_t n,
                   std::int32_t* to);

}  // namespace fastkv::cuda
