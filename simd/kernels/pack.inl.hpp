// Keys and values of one tile rearranged for prefill attention: keys transposed to panels, values in columns of 16.
#pragma once

#include "simd/kernels/rows.inl.hpp"

namespace fastkv::simd {
namespace {

/// in [16 rows, ld] -> out [16 columns][16 rows], 32-bit elements, by 4 x 4 blocks.
FASTKV_INLINE void transpose16(const float* in, std::int64_t ld, float* out) {
  for (int r = 0; r < 16; r += 4) {
    for (int c = 0; c < 16; c += 4) {
      __m128 a = _mm_loadu_ps(in + (r + 0) * ld + c), b = _mm_loadu_ps(in + (r + 1) * ld + c);
      __m128 e = _mm_loadu_ps(in + (r + 2) * ld + c), f = _mm_loadu_ps(in + (r + 3) * ld + c);
      _MM_TRANSPOSE4_PS(a, b, e, f);
      _mm_storeu_ps(out + (c + 0) * 16 + r, a), _mm_storeu_ps(out + (c + 1) * 16 + r, b);
      _mm_storeu_ps(out + (c + 2) * 16 + r, e), _mm_storeu_ps(out + (c + 3) * 16 + r, f);
    }
  }
}

void pack_keys_f32(const float* keys, std::int64_t ld, int n, int d, float* panel) {
  int i = 0;
  if (n == 16) {
    for (; i + 16 <= d; i += 16) transpose16(keys + i, ld, panel + i * 16);
  }
  alignas(64) float tile[16 * 16];
  for (; i < d; i += 16) {
    const int width = d - i < 16 ? d - i : 16;
    std::memset(tile, 0, sizeof tile);
    for (int r = 0; r < n; ++r) std::memcpy(tile + r * 16, keys + r * ld + i, std::size_t(width) * sizeof(float));
    alignas(64) float turned[16 * 16];
    transpose16(tile, 16, turned);
    std::memcpy(panel + i * 16, turned, std::size_t(width) * 16 * sizeof(float));
  }
}

void pack_keys_bf16(const float* keys, std::int64_t ld, int n, int d, std::uint16_t* panel) {
  // A pair of bfloat16 is one 32-bit element of the transposition; rows are converted 32 dims at a time.
  alignas(64) float tile[16 * 16];
  alignas(64) float turned[16 * 16];
  for (int i = 0; i < d; i += 32) {
    const int width = d - i < 32 ? d - i : 32;
    std::memset(tile, 0, sizeof tile);
    for (int r = 0; r < n; ++r) {
      f32_to_bf16(keys + r * ld + i, width, reinterpret_cast<std::uint16_t*>(tile + r * 16));
    }
    transpose16(tile, 16, turned);
    std::memcpy(panel + std::int64_t(i) * 16, turned, sizeof turned);
  }
}

void pack_values_f32(const float* values, std::int64_t ld, int n, int n_pad, int d, float* out) {
  for (int c = 0; c < d; c += 16, out += std::int64_t(n_pad) * 16) {
    const int width = d - c < 16 ? d - c : 16;
    for (int j = 0; j < n; ++j) {
      const float* v = values + j * ld + c;
      (width == 16 ? F32::load(v) : load_first(v, width)).store(out + j * 16);
    }
    std::memset(out + n * 16, 0, std::size_t(n_pad - n) * 16 * sizeof(float));
  }
}

void pack_values_bf16(const float* values, std::int64_t ld, int n, int n_pad, int d, std::uint16_t* out) {
  for (int c = 0; c < d; c += 16, out += std::int64_t(n_pad) * 16) {
    const int width = d - c < 16 ? d - c : 16;
    const auto at = [&](int j) __attribute__((always_inline)) {
      const float* v = values + j * ld + c;
      return j >= n ? F32::set(0.f) : width == 16 ? F32::load(v) : load_first(v, width);
    };
    // attend_bf16 packs the probabilities of key j and key j + 16 as a pair
    for (int j = 0; j < n_pad; j += 32) {
      for (int i = 0; i < 16; ++i) pair_bf16(at(j + i), at(j + i + 16)).store(out + (j + 2 * i) * 16);
    }
  }
}

}  // namespace
}  // namespace fastkv::simd
