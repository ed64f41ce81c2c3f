// Rows of keys and values into a layer's cache, and out of it for tests.
#include "backend/cuda/kernels/cache.hpp"

#include "backend/cuda/kernels/cached_row.cuh"
#include "backend/cuda/kernels/launch.cuh"
#include "core/check.hpp"
#include "core/index_rules.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kThreads = 256;  // each with a chunk of 8 values of a row

/// Where a thread of these kernels works: blockIdx.y is the stored head, blockIdx.z 0 for keys, 1 for values.
struct Place {
  std::int64_t row;
  int chunk, stored;
  bool values;
  __device__ explicit Place(int d) {
    const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
    row = i / (d / 8), chunk = int(i % (d / 8)), stored = int(blockIdx.y), values = blockIdx.z == 1;
  }
};
dim3 places(std::int64_t rows, int d, int stored_heads) {
  return dim3(unsigned(ceil_div(rows * (d / 8), kThreads)), unsigned(stored_heads), 2);
}

__global__ void __launch_bounds__(kThreads)
    store_rows_kernel(const f16* k, const f16* v, std::int64_t n, int heads_kv, int d, const std::int32_t* selected,
                      const std::int64_t* from, CacheView cache) {
  const Place at(d);
  const bool valid = at.row < cache.kept[at.stored];
  float x[8] = {};
  if (valid) {
    const std::int64_t row = selected[from[at.stored] + at.row];
    const f16* source = at.values ? v : k;
    source += (shared_head(at.stored, cache.stored_heads, heads_kv) * n + row) * d;
    RowChunk<CacheType::f16> loaded;
    loaded.load(reinterpret_cast<const std::byte*>(source), at.chunk, d);
    loaded.values(x);
  }
  store_chunk(at.values ? cache.v_type : cache.k_type, x, row_at(cache, at.values, cache.offsets[at.stored] + at.row),
              at.chunk, d, valid);
}

__global__ void __launch_bounds__(kThreads)
    read_rows_kernel(CacheType type, const std::byte* from, std::int64_t count, std::int64_t stride, int d, float* to) {
  const Place at(d);
  if (at.row >= count) return;
  float x[8];
  with_row_chunk(type, [&](auto chunk) {
    chunk.load(from + at.row * stride, at.chunk, d);
    chunk.values(x);
  });
  for (int i = 0; i < 8; ++i) to[at.row * d + at.chunk * 8 + i] = x[i];
}

}  // namespace

std::int64_t cache_row_bytes(CacheType type, int d) {
  switch (type) {
    case CacheType::f32:
      return std::int64_t(d) * 4;
    case CacheType::f16:
    case CacheType::bf16:
      return std::int64_t(d) * 2;
    case CacheType::q8_0:
      return round_up(d + d / 32 * 2, 4);
    case CacheType::automatic:
      break;
  }
  fail(ErrorCode::internal, "cache_row_bytes: unresolved cache type");
}

void store_rows(cudaStream_t stream, const AttentionShape& shape, const f16* k, const f16* v, std::int64_t n,
                const std::int32_t* selected, const std::int64_t* from, std::int64_t most, const CacheView& cache) {
  if (most == 0) return;
  launch(stream, places(most, shape.d, cache.stored_heads), dim3(kThreads), 0, store_rows_kernel, k, v, n,
         shape.heads_kv, shape.d, selected, from, cache);
}

void read_rows(cudaStream_t stream, CacheType type, const std::byte* from, std::int64_t count, int d, float* to) {
  if (count == 0) return;
  const dim3 grid(unsigned(ceil_div(count * (d / 8), kThreads)));
  launch(stream, grid, dim3(kThreads), 0, read_rows_kernel, type, from, count, cache_row_bytes(type, d), d, to);
}

}  // namespace fastkv::cuda
