// Kernels on rows of activations: embedding, norms, rotation, gating, gathers.
#include "backend/cuda/kernels/rows.hpp"

#include <cuda_runtime.h>

#include "backend/cuda/kernels/elementwise.cuh"
#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/warp.cuh"

namespace fastkv::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_of(std::int64_t items) { return unsigned((items + kThreads - 1) / kThreads); }

__device__ std::int64_t global_thread() { return std::int64_t(blockIdx.x) * kThreads + threadIdx.x; }

// Grids of (row, piece of a row) need no 64-bit division, which would take longer than the memory does.
dim3 rows_by_columns(std::int64_t rows, int columns) { return dim3(unsigned(rows), blocks_of(columns)); }

__device__ int column() { return int(blockIdx.y) * kThreads + int(threadIdx.x); }

// One block a row: rows reach 128K, widths 16K, and a row is contiguous.
__global__ void __launch_bounds__(kThreads)
    embed_kernel(const bf16* __restrict__ table, const std::int32_t* __restrict__ ids, int width,
                 float* __restrict__ x) {
  const bf16* from = table + std::int64_t(ids[blockIdx.x]) * width;
  float* to = x + std::int64_t(blockIdx.x) * width;
  for (int i = int(threadIdx.x); i < width; i += kThreads) to[i] = __bfloat162float(from[i]);
}

__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(const float* __restrict__ x, int width, const float* __restrict__ weight, float eps,
                    bf16* __restrict__ out) {
  const float* from = x + std::int64_t(blockIdx.x) * width;
  bf16* to = out + std::int64_t(blockIdx.x) * width;
  float squares = 0;
  for (int i = int(threadIdx.x); i < width; i += kThreads) squares += from[i] * from[i];
  const float scale = rsqrtf(block_sum<kThreads>(squares) / float(width) + eps);
  for (int i = int(threadIdx.x); i < width; i += kThreads)
    to[i] = __float2bfloat16_rn(weight[i] * (from[i] * scale));  // the second read comes from L1
}

__global__ void __launch_bounds__(kThreads)
    rope_table_kernel(const std::int32_t* __restrict__ positions, std::int64_t n, const double* __restrict__ inv_freq,
                      int half, float magnitude, float2* __restrict__ table) {
  const std::int64_t at = global_thread();
  if (at >= n * half) return;
  table[at] = angle_of(positions[at / half], inv_freq[at % half], magnitude);
}

__device__ __half2 finite(float2 pair) {
  constexpr float kMost = 65504;
  return __floats2half2_rn(fmaxf(-kMost, fminf(kMost, pair.x)), fmaxf(-kMost, fminf(kMost, pair.y)));
}

// A thread per pair of values of one row: parts · K heads of d, keys first.
__global__ void __launch_bounds__(kThreads)
    store_layer_kv_kernel(const float2* __restrict__ kv, const float2* __restrict__ table, std::int64_t first,
                          std::int64_t n, int parts, int heads_kv, int half, __half2* __restrict__ k,
                          __half2* __restrict__ v) {
  const int width = parts * heads_kv * half, at = column();
  if (at >= width) return;
  const std::int64_t row = first + blockIdx.x;
  const int pair = at % half, head = at / half;
  const bool is_key = head < heads_kv;
  const float2 value = kv[std::int64_t(blockIdx.x) * width + at];
  const std::int64_t to = ((is_key ? head : head - heads_kv) * n + row) * half + pair;
  if (is_key)
    k[to] = finite(turned(value, table[row * half + pair]));
  else
    v[to] = finite(value);
}

__global__ void __launch_bounds__(kThreads)
    rotate_queries_kernel(const float2* __restrict__ q, const float2* __restrict__ table, int heads, int half,
                          __half2* __restrict__ rotated) {
  const int width = heads * half, at = column();
  if (at >= width) return;
  const std::int64_t pair = std::int64_t(blockIdx.x) * width + at;
  rotated[pair] = finite(turned(q[pair], table[std::int64_t(blockIdx.x) * half + at % half]));
}

__global__ void __launch_bounds__(kThreads)
    silu_mul_kernel(const bf16* __restrict__ gate_up, int width, bf16* __restrict__ out) {
  const int at = column();
  if (at >= width) return;
  const bf16* row = gate_up + std::int64_t(blockIdx.x) * 2 * width + at;
  out[std::int64_t(blockIdx.x) * width + at] =
      __float2bfloat16_rn(silu(__bfloat162float(row[0])) * __bfloat162float(row[width]));
}

// The same, eight values of a row at a time: 16-byte loads and stores.
__global__ void __launch_bounds__(kThreads)
    silu_mul8_kernel(const uint4* __restrict__ gate_up, int width8, uint4* __restrict__ out) {
  const int at = column();
  if (at >= width8) return;
  const uint4* row = gate_up + std::int64_t(blockIdx.x) * 2 * width8 + at;
  uint4 g = row[0];
  const uint4 u = row[width8];
  auto* pairs = reinterpret_cast<__nv_bfloat162*>(&g);
  const auto* ups = reinterpret_cast<const __nv_bfloat162*>(&u);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 a = __bfloat1622float2(pairs[i]), b = __bfloat1622float2(ups[i]);
    pairs[i] = __float22bfloat162_rn({silu(a.x) * b.x, silu(a.y) * b.y});
  }
  out[std::int64_t(blockIdx.x) * width8 + at] = g;
}

__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(const float* __restrict__ from, const std::int32_t* __restrict__ rows, int width,
                       float* __restrict__ to) {
  const float* row = from + std::int64_t(rows[blockIdx.x]) * width;
  for (int i = int(threadIdx.x); i < width; i += kThreads) to[std::int64_t(blockIdx.x) * width + i] = row[i];
}

__global__ void __launch_bounds__(kThreads)
    gather_values_kernel(const std::int32_t* __restrict__ from, const std::int32_t* __restrict__ rows, std::int64_t n,
                         std::int32_t* __restrict__ to) {
  const std::int64_t i = global_thread();
  if (i < n) to[i] = from[rows[i]];
}

}  // namespace

void embed(cudaStream_t stream, const bf16* table, const std::int32_t* ids, std::int64_t n, int width, float* x) {
  launch(stream, dim3(unsigned(n)), dim3(kThreads), 0, embed_kernel, table, ids, width, x);
}

void rms_norm(cudaStream_t stream, const float* x, std::int64_t m, int width, const float* weight, float eps,
              bf16* out) {
  launch(stream, dim3(unsigned(m)), dim3(kThreads), 0, rms_norm_kernel, x, width, weight, eps, out);
}

void rope_table(cudaStream_t stream, const std::int32_t* positions, std::int64_t n, const double* inv_freq, int d,
                float magnitude, float2* table) {
  launch(stream, dim3(blocks_of(n * (d / 2))), dim3(kThreads), 0, rope_table_kernel, positions, n, inv_freq, d / 2,
         magnitude, table);
}

void store_layer_kv(cudaStream_t stream, const float* kv, const float2* table, std::int64_t first, std::int64_t m,
                    std::int64_t n, int heads_kv, int d, f16* k, f16* v) {
  const int parts = v ? 2 : 1;
  launch(stream, rows_by_columns(m, parts * heads_kv * (d / 2)), dim3(kThreads), 0, store_layer_kv_kernel,
         reinterpret_cast<const float2*>(kv), table, first, n, parts, heads_kv, d / 2, reinterpret_cast<__half2*>(k),
         reinterpret_cast<__half2*>(v));
}

void rotate_queries(cudaStream_t stream, const float* q, const float2* table, std::int64_t m, int heads, int d,
                    f16* rotated) {
  launch(stream, rows_by_columns(m, heads * (d / 2)), dim3(kThreads), 0, rotate_queries_kernel,
         reinterpret_cast<const float2*>(q), table, heads, d / 2, reinterpret_cast<__half2*>(rotated));
}

void silu_mul(cudaStream_t stream, const bf16* gate_up, std::int64_t m, int width, bf16* out) {
  if (width % 8 == 0)
    launch(stream, rows_by_columns(m, width / 8), dim3(kThreads), 0, silu_mul8_kernel,
           reinterpret_cast<const uint4*>(gate_up), width / 8, reinterpret_cast<uint4*>(out));
  else
    launch(stream, rows_by_columns(m, width), dim3(kThreads), 0, silu_mul_kernel, gate_up, width, out);
}

void gather_rows(cudaStream_t stream, const float* from, const std::int32_t* rows, std::int64_t n, int width,
                 float* to) {
  launch(stream, dim3(unsigned(n)), dim3(kThreads), 0, gather_rows_kernel, from, rows, width, to);
}

void gather_values(cudaStream_t stream, const std::int32_t* from, const std::int32_t* rows, std::int64_t n,
                   std::int32_t* to) {
  launch(stream, dim3(blocks_of(n)), dim3(kThreads), 0, gather_values_kernel, from, rows, n, to);
}

}  // namespace fastkv::cuda
