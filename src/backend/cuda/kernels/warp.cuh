// Sums and maxima over the lanes of a warp and the threads of a block, each in an order that depends on nothing else.
#pragma once

#include <cuda_runtime.h>

namespace fastkv::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kWarp = 32;

struct Sum {
  __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};
struct Maximum {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Of x over each run of kLanes lanes whose numbers differ by kStep, in every one of them.
template <class Op, int kLanes = kWarp, int kStep = 1>
__device__ __forceinline__ float warp_reduce(Op op, float x) {
#pragma unroll
  for (int other = kLanes * kStep / 2; other >= kStep; other /= 2) x = op(x, __shfl_xor_sync(kAllLanes, x, other));
  return x;
}
template <int kLanes = kWarp, int kStep = 1>
__device__ __forceinline__ float warp_sum(float x) {
  return warp_reduce<Sum, kLanes, kStep>(Sum{}, x);
}
template <int kLanes = kWarp, int kStep = 1>
__device__ __forceinline__ float warp_max(float x) {
  return warp_reduce<Maximum, kLanes, kStep>(Maximum{}, x);
}

/// Of x over the threads of a block (kThreads, a multiple of 32), in every one of them. All threads call it.
template <class Op, int kThreads>
__device__ __forceinline__ float block_reduce(Op op, float x) {
  __shared__ float of_warp[kThreads / kWarp];
  x = warp_reduce<Op>(op, x);
  __syncthreads();  // what an earlier call left is read
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = of_warp[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarp; ++warp) x = op(x, of_warp[warp]);
  return x;
}
template <int kThreads>
__device__ __forceinline__ float block_sum(float x) {
  return block_reduce<Sum, kThreads>(Sum{}, x);
}
template <int kThreads>
__device__ __forceinline__ float block_max(float x) {
  return block_reduce<Maximum, kThreads>(Maximum{}, x);
}

/// Sums of kValues values over runs of kLanes lanes (both powers of two): afterwards v[0 .. max(1, kValues / kLanes))
/// of lane l are the sums of values first_sum<kValues, kLanes>(l) onwards. Half the values change hands in the first
/// step, a quarter in the next: kValues shuffles in all, where value after value would take kValues · log2(kLanes).
template <int kValues, int kLanes>
__device__ __forceinline__ void sum_each(float (&v)[kValues], int lane) {
  int held = kValues;
#pragma unroll
  for (int other = kLanes / 2; other >= 1; other /= 2) {
    if (held == 1) {
      v[0] += __shfl_xor_sync(kAllLanes, v[0], other);
      continue;
    }
    held /= 2;
    const bool upper = lane & other;
#pragma unroll
    for (int i = 0; i < kValues / 2; ++i) {
      if (i >= held) continue;
      const float given = __shfl_xor_sync(kAllLanes, upper ? v[i] : v[i + held], other);
      v[i] = (upper ? v[i + held] : v[i]) + given;
    }
  }
}
template <int kValues, int kLanes>
__device__ __forceinline__ int first_sum(int lane) {
  int first = 0, held = kValues;
#pragma unroll
  for (int other = kLanes / 2; other >= 1 && held > 1; other /= 2) {
    held /= 2;
    if (lane & other) first += held;
  }
  return first;
}

}  // namespace fastkv::cuda
