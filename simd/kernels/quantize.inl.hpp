// Activations to int8 with one scale per 32, and single rows to the element types of the cache.
#pragma once

#include "simd/kernels/rows.inl.hpp"

namespace fastkv::simd {
namespace {

/// Below it max/127 would be subnormal; such a group is rounded to zero.
inline constexpr float kSmallestMax = 0x1p-119f;

struct Group {
  F32 lo, hi;  ///< 32 values
};
FASTKV_INLINE Group load_group(const float* x, std::int64_t n) {
  if (n >= 32) return {F32::load(x), F32::load(x + 16)};
  if (n >= 16) return {F32::load(x), load_first(x + 16, n - 16)};
  return {load_first(x, n), F32::set(0.f)};
}
FASTKV_INLINE float max_abs(Group g) { return max(max(abs(g.lo), abs(g.hi))); }
/// Nearest integers of x·inverse within ±127.
FASTKV_INLINE I32 to_level(F32 x, F32 inverse) {
  return to_int(max(F32::set(-127.f), min(F32::set(127.f), x * inverse)));
}

void quantize_i8(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums) {
  for (std::int64_t i = 0; i < k; i += kGroup, q += kGroup, ++scale, sums += 2) {
    const Group g = load_group(x + i, k - i);
    const float top = max_abs(g);
    const bool some = top >= kSmallestMax;
    *scale = some ? top / 127.f : 0.f;
    const F32 inverse = F32::set(some ? 127.f / top : 0.f);
    const I32 lo = to_level(g.lo, inverse), hi = to_level(g.hi, inverse);
    lo.to_i8(q), hi.to_i8(q + 16);
    sums[0] = sum(lo), sums[1] = sum(hi);
  }
}

/// ±65504 at most; NaN stays.
FASTKV_INLINE F32 clamp_half(F32 x) { return min(F32::set(65504.f), max(F32::set(-65504.f), x)); }
FASTKV_INLINE std::uint16_t to_half(float x) {
  alignas(64) std::uint16_t lanes[16];
  clamp_half(F32::set(x)).to_f16(lanes);
  return lanes[0];
}
void encode_q8_0(const float* x, int d, std::uint8_t* row) {
  for (int i = 0; i < d; i += 32, row += 34) {
    const Group g = load_group(x + i, 32);
    // The scale as it will be read back, so that its rounding costs nothing twice.
    const std::uint16_t half = to_half(max_abs(g) / 127.f);
    alignas(64) float scale[16];
    F32::set_f16(half).store(scale);
    const F32 inverse = F32::set(scale[0] > 0 ? 1.f / scale[0] : 0.f);
    std::memcpy(row, &half, 2);
    to_level(g.lo, inverse).to_i8(reinterpret_cast<std::int8_t*>(row) + 2);
    to_level(g.hi, inverse).to_i8(reinterpret_cast<std::int8_t*>(row) + 18);
  }
}

void encode_row(RowType type, const float* x, int d, void* row) {
  switch (type) {
    case RowType::f32:
      std::memcpy(row, x, std::size_t(d) * sizeof(float));
      return;
    case RowType::bf16:
      f32_to_bf16(x, d, static_cast<std::uint16_t*>(row));
      return;
    case RowType::q8_0:
      encode_q8_0(x, d, static_cast<std::uint8_t*>(row));
      return;
    case RowType::f16:
      break;
  }
  std::uint16_t* out = static_cast<std::uint16_t*>(row);
  for_each_vector(
      d, [&](std::int64_t i) __attribute__((always_inline)) { clamp_half(F32::load(x + i)).to_f16(out + i); },
      [&](std::int64_t i, std::int64_t rest) __attribute__((always_inline)) {
        alignas(64) std::uint16_t lanes[16];
        clamp_half(load_first(x + i, rest)).to_f16(lanes);
        std::memcpy(out + i, lanes, std::size_t(rest) * 2);
      });
}

/// Element i of `count` goes to lane `lane` of row i of a panel.
template <int Bytes>
FASTKV_INLINE void to_lane(const std::uint8_t* elements, int count, std::uint8_t* panel, int lane) {
  for (int i = 0; i < count; ++i) std::memcpy(panel + (i * kLanes + lane) * Bytes, elements + i * Bytes, Bytes);
}
void encode_key(RowType type, const float* x, int d, void* panel, int lane) {
  alignas(64) std::uint8_t row[256 * 4];
  encode_row(type, x, d, row);
  auto* out = static_cast<std::uint8_t*>(panel);
  switch (type) {
    case RowType::f32:
      return to_lane<4>(row, d, out, lane);
    case RowType::f16:
    case RowType::bf16:
      return to_lane<2>(row, d, out, lane);
    case RowType::q8_0:
      break;
  }
  const std::uint8_t* block = row;
  for (int i = 0; i < d; i += 32, block += 34, out += 34 * kLanes) {
    to_lane<2>(block, 1, out, lane);
    to_lane<1>(block + 2, 32, out + 2 * kLanes, lane);
  }
}

}  // namespace
}  // namespace fastkv::simd
