// Rows of a layer's cache in memory: eight values at a time, to and from float32.
//
// f32, f16, bf16: d values. q8_0: d int8, then a float16 scale for each 32 of them (rows begin at multiples of 4
// bytes).
#pragma once

#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend/cuda/kernels/attention.hpp"
#include "backend/cuda/kernels/warp.cuh"

namespace fastkv::cuda {

/// Values 8 · chunk .. + 8 of a row as they lie in memory, so that many loads are under way before one is used.
template <CacheType kType>
struct RowChunk;

template <>
struct RowChunk<CacheType::f32> {
  float4 low, high;
  __device__ __forceinline__ void load(const std::byte* row, int chunk, int) {
    low = reinterpret_cast<const float4*>(row)[2 * chunk];
    high = reinterpret_cast<const float4*>(row)[2 * chunk + 1];
  }
  __device__ __forceinline__ void values(float (&x)[8]) const {
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
  }
};

/// Of 16-bit values.
struct NarrowChunk {
  uint4 pairs;
  __device__ __forceinline__ void load(const std::byte* row, int chunk, int) {
    pairs = reinterpret_cast<const uint4*>(row)[chunk];
  }
};

template <>
struct RowChunk<CacheType::bf16> : NarrowChunk {
  __device__ __forceinline__ void values(float (&x)[8]) const {
    const std::uint32_t pair[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = __uint_as_float(pair[i] << 16);
      x[2 * i + 1] = __uint_as_float(pair[i] & 0xffff0000u);
    }
  }
};

template <>
struct RowChunk<CacheType::f16> : NarrowChunk {
  __device__ __forceinline__ void values(float (&x)[8]) const {
    const std::uint32_t pair[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = __half2float(__ushort_as_half(static_cast<unsigned short>(pair[i])));
      x[2 * i + 1] = __half2float(__ushort_as_half(static_cast<unsigned short>(pair[i] >> 16)));
    }
  }
};

template <>
struct RowChunk<CacheType::q8_0> {
  std::uint32_t quads[2];
  __half scale;
  __device__ __forceinline__ void load(const std::byte* row, int chunk, int d) {
    quads[0] = reinterpret_cast<const std::uint32_t*>(row)[2 * chunk];
    quads[1] = reinterpret_cast<const std::uint32_t*>(row)[2 * chunk + 1];
    scale = reinterpret_cast<const __half*>(row + d)[chunk / 4];
  }
  __device__ __forceinline__ void values(float (&x)[8]) const {
    // q + 128 as the low byte of 2^23 + q + 128: two instructions, both faster than a conversion
    const float factor = __half2float(scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t biased = quads[i / 4] ^ 0x80808080u;
      x[i] = factor * (__uint_as_float(__byte_perm(biased, 0x4b000000u, 0x7440 + i % 4)) - (0x1p23f + 128));
    }
  }
};

/// Stores x as values 8 · chunk .. + 8 of a row of `type`, rounded to nearest even; float16 stays finite. Lanes that
/// are not `valid` store nothing. All lanes of a warp call it; of q8_0, four consecutive lanes hold what shares a
/// scale.
__device__ __forceinline__ void store_chunk(CacheType type, const float (&x)[8], std::byte* row, int chunk, int d,
                                            bool valid) {
  if (type == CacheType::q8_0) {
    float largest = 0;
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(x[i]));
    const __half scale = __float2half_rn(fminf(warp_max<4>(largest) / 127, 65504.0f));
    // by the scale as it will be read back, so that its rounding costs nothing twice
    const float factor = __half2float(scale), inverse = factor > 0 ? 1 / factor : 0;
    if (!valid) return;
    std::int8_t q[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) q[i] = static_cast<std::int8_t>(rintf(fmaxf(-127.0f, fminf(127.0f, x[i] * inverse))));
    std::uint32_t quads[2];
    std::memcpy(quads, q, sizeof q);
    for (int i = 0; i < 2; ++i) reinterpret_cast<std::uint32_t*>(row)[2 * chunk + i] = quads[i];
    if (chunk % 4 == 0) reinterpret_cast<__half*>(row + d)[chunk / 4] = scale;
    return;
  }
  if (!valid) return;
  if (type == CacheType::f32) {
    reinterpret_cast<float4*>(row)[2 * chunk] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(row)[2 * chunk + 1] = make_float4(x[4], x[5], x[6], x[7]);
    return;
  }
  unsigned short narrow[8];
#pragma unroll
  for (int i = 0; i < 8; ++i)
    narrow[i] = type == CacheType::bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(x[i]))
                                        : __half_as_ushort(__float2half_rn(fmaxf(-65504.0f, fminf(65504.0f, x[i]))));
  uint4 all;
  std::memcpy(&all, narrow, sizeof narrow);
  reinterpret_cast<uint4*>(row)[chunk] = all;
}

/// A row of keys, or of values, to be written.
__device__ __forceinline__ std::byte* row_at(const CacheView& cache, bool values, std::int64_t row) {
  return const_cast<std::byte*>(values ? cache.v + row * cache.v_stride : cache.k + row * cache.k_stride);
}

/// Calls run(RowChunk<type>) of the type found at run time.
template <class Run>
__device__ __forceinline__ void with_row_chunk(CacheType type, const Run& run) {
  if (type == CacheType::bf16) return run(RowChunk<CacheType::bf16>());
  if (type == CacheType::f16) return run(RowChunk<CacheType::f16>());
  if (type == CacheType::q8_0) return run(RowChunk<CacheType::q8_0>());
  run(RowChunk<CacheType::f32>());
}

}  // namespace fastkv::cuda
