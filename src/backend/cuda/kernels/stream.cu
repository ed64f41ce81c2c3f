// Kernels that do nothing but write numbers or read them.
#include "backend/cuda/kernels/stream.hpp"

#include <cuda_runtime.h>

#include <algorithm>

#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/warp.cuh"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / kWarp;
constexpr int kLoads = 4;           // of 16 bytes that a thread has under way
constexpr int kFillBlocks = 65536;  // at most

__global__ void __launch_bounds__(kThreads) fill_random_kernel(__nv_bfloat16* __restrict__ to, std::size_t count) {
  const std::size_t step = std::size_t(gridDim.x) * kThreads;
  for (std::size_t i = std::size_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    std::uint32_t x = std::uint32_t(i) * 0x9e3779b9u;  // mixed, so that neighbours differ in every bit
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    to[i] = __float2bfloat16_rn((float(x >> 24) - 128.0f) / 128.0f);
  }
}

__global__ void __launch_bounds__(kThreads)
    read_all_kernel(const uint4* __restrict__ from, std::size_t count, int passes, std::uint32_t* __restrict__ sums) {
  const std::size_t step = std::size_t(gridDim.x) * kThreads * kLoads;
  std::uint32_t sum = 0;
  for (int pass = 0; pass < passes; ++pass) {
    for (std::size_t i = std::size_t(blockIdx.x) * kThreads * kLoads + threadIdx.x; i < count; i += step) {
      uint4 words[kLoads] = {};
#pragma unroll
      for (int l = 0; l < kLoads; ++l)
        if (i + std::size_t(l) * kThreads < count) words[l] = __ldcg(from + i + l * kThreads);
#pragma unroll
      for (int l = 0; l < kLoads; ++l) sum += words[l].x + words[l].y + words[l].z + words[l].w;
    }
  }
  for (int other = kWarp / 2; other >= 1; other /= 2) sum += __shfl_xor_sync(kAllLanes, sum, other);
  if (threadIdx.x % kWarp == 0) sums[blockIdx.x * kWarps + threadIdx.x / kWarp] = sum;
}

}  // namespace

void fill_random(cudaStream_t stream, __nv_bfloat16* to, std::size_t count) {
  if (count == 0) return;
  const std::int64_t blocks = std::min<std::int64_t>(ceil_div(std::int64_t(count), kThreads), kFillBlocks);
  launch(stream, dim3(unsigned(blocks)), dim3(kThreads), 0, fill_random_kernel, to, count);
}

void read_all(cudaStream_t stream, const void* from, std::size_t bytes, int passes, int blocks, std::uint32_t* sums) {
  launch(stream, dim3(unsigned(blocks)), dim3(kThreads), 0, read_all_kernel, static_cast<const uint4*>(from),
         bytes / sizeof(uint4), passes, sums);
}

std::size_t read_sums(int blocks) { return std::size_t(blocks) * kWarps; }

}  // namespace fastkv::cuda
