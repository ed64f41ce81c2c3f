// What several kernels do to single values: the gate's activation, the turn of a pair.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fastkv::cuda {

__device__ __forceinline__ float silu(float x) { return x / (1.0f + __expf(-x)); }

/// A pair (x, y) of neighbouring values turned by an angle {cos, sin}: (x·cos − y·sin, y·cos + x·sin).
__device__ __forceinline__ float2 turned(float2 pair, float2 angle) {
  return {pair.x * angle.x - pair.y * angle.y, pair.y * angle.x + pair.x * angle.y};
}

/// The angle of `position` for one pair; in double, as positions reach 10^6.
__device__ __forceinline__ float2 angle_of(std::int32_t position, double inv_freq, float magnitude) {
  double sine, cosine;
  sincos(double(position) * inv_freq, &sine, &cosine);
  return {float(cosine) * magnitude, float(sine) * magnitude};
}

}  // namespace fastkv::cuda
