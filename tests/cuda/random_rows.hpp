// Random inputs of device kernels, as the device holds them and as double, and copies between the two memories.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "backend/cuda/device.hpp"
#include "core/half.hpp"

namespace fastkv::test {

using bf16 = __nv_bfloat16;
using f16 = __half;

inline double value(bf16 x) {
  std::uint16_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bf16_to_f32(bits);
}

inline double value(f16 x) {
  std::uint16_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return f16_to_f32(bits);
}

/// `size` values in ±`limit`, always the same for a seed.
inline std::vector<float> random_floats(std::size_t size, unsigned seed, float limit = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> any(-limit, limit);
  std::vector<float> out(size);
  for (float& x : out) x = any(engine);
  return out;
}
template <class T>
std::vector<T> rounded(const std::vector<float>& from) {
  std::vector<T> out;
  for (const float x : from) out.push_back(T(x));
  return out;
}
template <class T>
std::vector<T> random_rows(std::size_t size, unsigned seed, float limit = 1) {
  return rounded<T>(random_floats(size, seed, limit));
}

template <class T>
cuda::DeviceArray<T> on_device(cudaStream_t stream, const std::vector<T>& from) {
  return cuda::to_device(stream, std::span<const T>(from), "test");
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace fastkv::test
