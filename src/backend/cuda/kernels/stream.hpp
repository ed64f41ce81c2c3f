// Memory filled with numbers and memory that is only read: for measurements of what a device can do at most.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace fastkv::cuda {

/// to[i] in [−1, 1), evenly spread and always the same: products of zeros run faster than those of numbers, since they
/// take less power.
void fill_random(cudaStream_t stream, __nv_bfloat16* to, std::size_t count);

/// Reads `bytes` (a multiple of 16) `passes` times with `blocks` blocks; sums [read_sums(blocks)] add up to `passes`
/// times the sum of the 32-bit words, modulo 2^32.
void read_all(cudaStream_t stream, const void* from, std::size_t bytes, int passes, int blocks, std::uint32_t* sums);
std::size_t read_sums(int blocks);

}  // namespace fastkv::cuda
