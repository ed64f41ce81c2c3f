// From scores to rows: pooling, sums over heads, top-k with its tie rule, coverage. Indices stay on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/backend.hpp"

namespace fastkv::cuda {

/// P (spec/methods.md 0.3): pooled [heads, n] of scores [heads, n].
void pool(cudaStream_t stream, const float* scores, int heads, std::int64_t n, Pooling pooling, const PoolWidth& width,
          float* pooled);

/// reduced [groups, n]: sums (in the heads' order) or maxima of each group of heads / groups consecutive heads.
void reduce_heads(cudaStream_t stream, const float* scores, int heads, std::int64_t n, int groups, GroupReduce reduce,
                  float* reduced);

/// Rows of each head, ascending: the first `first`, the last `last` of n, and the best others by (score, lower index
/// first), kept[h] in all (0.4). scores [heads, scored]; kept and offsets: device [heads]; rows of head h go to
/// selected + offsets[h].
void top_k(cudaStream_t stream, const float* scores, int heads, std::int64_t scored, std::int64_t n,
           const std::int32_t* kept, const std::int64_t* offsets, std::int64_t first, std::int64_t last,
           std::int32_t* selected);

/// The first `first` and the last `last` of n rows, for each of `heads`.
void select_ends(cudaStream_t stream, std::int64_t n, std::int64_t first, std::int64_t last, int heads,
                 std::int32_t* selected);

/// shares [heads]: Backend::coverage of each query head before the mean, in double. raw [heads, scored]; head h reads
/// the rows of selection head ⌊h · selection_heads / heads⌋.
void coverage(cudaStream_t stream, const float* raw, int heads, std::int64_t scored, const std::int32_t* selected,
              const std::int64_t* offsets, const std::int32_t* kept, int selection_heads, std::int64_t rows,
              double* shares);

}  // namespace fastkv::cuda
