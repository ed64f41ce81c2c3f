// A product's inputs in shared memory, and what a lane loads of each form of weights at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/kernels/decode.hpp"

namespace fastkv::cuda {

inline constexpr int kGroup = 32;  ///< inputs that share a scale

/// Inputs as float32, in quartets: quartet j of group b lies at j · stride + b, where stride is 1 above a multiple
/// of 4. Lanes that read the same quartet of neighbouring groups (4-bit weights), of their halves (8-bit ones) or eight
/// neighbouring inputs each (bfloat16) meet no bank twice. Zeros beyond the last input.
struct Inputs {
  float4* quartets;  ///< [8][stride]
  float* sums;       ///< [groups] of each group, for forms that ask for them
  int stride;

  __device__ float4& quartet(int index) const { return quartets[index % 8 * stride + index / 8]; }
};

constexpr int groups_of(int in) { return (in + kGroup - 1) / kGroup; }
constexpr int stride_of(int in) { return (groups_of(in) + 2) / 4 * 4 + 1; }
constexpr std::size_t shared_bytes(int in) {
  return std::size_t(stride_of(in)) * kGroup * sizeof(float) + std::size_t(groups_of(in)) * sizeof(float);
}

__device__ __forceinline__ float low_bf16(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(std::uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/// Of rows that begin at 16-byte boundaries.
struct EightBf16 {
  static constexpr int kInputs = 8;
  static constexpr bool kSums = false;
  using Load = uint4;
  __device__ __forceinline__ static Load load(const DecodeMatrix& w, std::uint32_t at) {
    return static_cast<const uint4*>(w.weights)[at];
  }
  __device__ __forceinline__ static float dot(const Load& w, const Inputs& inputs, int chunk, float sum) {
    const float4 a = inputs.quartet(chunk * 2), b = inputs.quartet(chunk * 2 + 1);
    sum += low_bf16(w.x) * a.x + high_bf16(w.x) * a.y;
    sum += low_bf16(w.y) * a.z + high_bf16(w.y) * a.w;
    sum += low_bf16(w.z) * b.x + high_bf16(w.z) * b.y;
    sum += low_bf16(w.w) * b.z + high_bf16(w.w) * b.w;
    return sum;
  }
};

/// Of rows that begin between 16-byte boundaries: tiny models only.
struct OneBf16 {
  static constexpr int kInputs = 1;
  static constexpr bool kSums = false;
  using Load = bf16;
  __device__ __forceinline__ static Load load(const DecodeMatrix& w, std::uint32_t at) {
    return static_cast<const bf16*>(w.weights)[at];
  }
  __device__ __forceinline__ static float dot(const Load& w, const Inputs& inputs, int chunk, float sum) {
    const float4 x = inputs.quartet(chunk / 4);
    const float value = chunk % 4 == 0 ? x.x : chunk % 4 == 1 ? x.y : chunk % 4 == 2 ? x.z : x.w;
    return sum + __bfloat162float(w) * value;
  }
};

/// Half a group of 8-bit weights. Byte b below the bits of 2^23 is 2^23 + b: a subtraction makes it exactly q, and both
/// are faster than a conversion.
struct SixteenQ8 {
  static constexpr int kInputs = kGroup / 2;
  static constexpr bool kSums = false;
  struct Load {
    uint4 bytes;
    __half scale;
  };
  __device__ __forceinline__ static Load load(const DecodeMatrix& w, std::uint32_t at) {
    return {static_cast<const uint4*>(w.weights)[at], reinterpret_cast<const __half*>(w.scales)[at]};
  }
  __device__ __forceinline__ static float code(std::uint32_t bytes, int number) {
    return __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7440u + unsigned(number))) - (0x1p23f + 128);
  }
  __device__ __forceinline__ static float dot(const Load& w, const Inputs& inputs, int chunk, float sum) {
    const std::uint32_t words[4] = {w.bytes.x, w.bytes.y, w.bytes.z, w.bytes.w};
    float codes = 0;  // Σ q·x
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 x = inputs.quartet(chunk * 4 + i);
      codes += code(words[i], 0) * x.x;
      codes += code(words[i], 1) * x.y;
      codes += code(words[i], 2) * x.z;
      codes += code(words[i], 3) * x.w;
    }
    return sum + __half2float(w.scale) * codes;
  }
};

/// A group of 4-bit weights. A byte q below a float's upper bytes makes 128 + q without a conversion, which costs four
/// times a byte permutation: Σ w·x = scale · Σ (128 + q)·x + (offset − 128 · scale) · Σ x.
struct GroupQ4 {
  static constexpr int kInputs = kGroup;
  static constexpr bool kSums = true;
  struct Load {
    uint4 nibbles;
    __half2 scale;
  };
  __device__ __forceinline__ static Load load(const DecodeMatrix& w, std::uint32_t at) {
    return {static_cast<const uint4*>(w.weights)[at], w.scales[at]};
  }
  __device__ __forceinline__ static float dot4(std::uint32_t bytes, const float4& x, float sum) {
    constexpr std::uint32_t kBits128 = 0x43000000u;  // of 128.0f; a unit is bit 16
    sum += __uint_as_float(__byte_perm(bytes, kBits128, 0x7044)) * x.x;
    sum += __uint_as_float(__byte_perm(bytes, kBits128, 0x7144)) * x.y;
    sum += __uint_as_float(__byte_perm(bytes, kBits128, 0x7244)) * x.z;
    return sum + __uint_as_float(__byte_perm(bytes, kBits128, 0x7344)) * x.w;
  }
  __device__ __forceinline__ static float dot(const Load& w, const Inputs& inputs, int group, float sum) {
    const std::uint32_t words[4] = {w.nibbles.x, w.nibbles.y, w.nibbles.z, w.nibbles.w};
    float raised = 0;  // Σ (128 + q)·x
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      raised = dot4(words[i] & 0x0f0f0f0fu, inputs.quartet(group * 8 + i), raised);
      raised = dot4(words[i] >> 4 & 0x0f0f0f0fu, inputs.quartet(group * 8 + 4 + i), raised);
    }
    const float2 scale = __half22float2(w.scale);
    return sum + (scale.x * raised + (scale.y - 128.0f * scale.x) * inputs.sums[group]);
  }
};

}  // namespace fastkv::cuda
