// Rows into a layer's cache, each value rounded once from what the layer computed.
#pragma once

#include "backend/cuda/kernels/attention.hpp"

namespace fastkv::cuda {

/// Bytes of a cache row of d values.
std::int64_t cache_row_bytes(CacheType type, int d);

/// Row i of stored head s = row selected[from[s] + i] of key/value head ⌊s · K / stored⌋ of k and v [K][n][d], for
/// i < cache.kept[s]; from [stored heads] on the device; `most`: the largest kept[s].
void store_rows(cudaStream_t stream, const AttentionShape& shape, const f16* k, const f16* v, std::int64_t n,
                const std::int32_t* selected, const std::int64_t* from, std::int64_t most, const CacheView& cache);

/// `count` cache rows of `type` at `from` (row_bytes apart) as float32 [count][d], for tests.
void read_rows(cudaStream_t stream, CacheType type, const std::byte* from, std::int64_t count, int d, float* to);

}  // namespace fastkv::cuda
