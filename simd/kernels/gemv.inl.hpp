// One activation row times one packed panel: weights are unpacked in registers, 16 outputs in 16 lanes, read once.
#pragma once

#include "simd/kernels/gemm_i8.inl.hpp"
#include "simd/kernels/unpack.inl.hpp"

namespace fastkv::simd {
namespace {

template <Packing P>
void gemv_i8_as(const void* panel, std::int64_t k32, const I8Rows& a, float* out) {
  F32 acc = F32::set(0.f);
  if constexpr (!kFormat<P>.is_float()) {
    constexpr int kParts = Block<P>::parts;
    const std::uint8_t* p = static_cast<const std::uint8_t*>(panel);
    for (std::int64_t k = 0; k < k32; k += kFormat<P>.block, p += kFormat<P>.block_bytes()) {
      const Block<P> block(p);
      for (int g = 0; g < Block<P>::groups; ++g) {
        const std::int64_t group = k / kGroup + g;
        const std::uint8_t* planes = block.planes(g);
        const std::int8_t* q = a.q + group * kGroup;
        const std::int32_t* sums = a.sum + 2 * group;
        const F32 a_scale = F32::set(a.scale[group]);
        unroll<kParts>([&](auto part) __attribute__((always_inline)) {
          const std::int32_t sum = kParts == 1 ? sums[0] + sums[1] : sums[part];
          I32 dot = I32::set(-kFormat<P>.zero * sum);
          unroll<8 / kParts>([&](auto step) __attribute__((always_inline)) {
            constexpr int j = decltype(part)::value * 4 + decltype(step)::value;
            dot = dot_i8<kFormat<P>.wide()>(dot, codes<P, j>(planes), I32::set(read<std::int32_t>(q + 4 * j)));
          });
          if constexpr (kFormat<P>.affine) {
            acc = add_group(acc, dot, a_scale, block.scale(g, part), block.min(g), F32::set(-float(sum)));
          } else {
            acc = add_group(acc, dot, a_scale, block.scale(g, part));
          }
        });
      }
    }
  }
  acc.store(out);
}

template <Packing P>
void gemv_f32_as(const void* panel, std::int64_t k32, const float* x, float* out) {
  F32 acc = F32::set(0.f);
  for_groups<P>(
      panel, k32, [&](std::int64_t k, const float* weights) __attribute__((always_inline)) {
        for (int i = 0; i < 32; ++i) acc = fma(F32::set(x[k + i]), F32::load(weights + i * kLanes), acc);
      });
  acc.store(out);
}

template <Packing P>
struct GemvI8 {
  static constexpr auto* call = &gemv_i8_as<P>;
};
template <Packing P>
struct GemvF32 {
  static constexpr auto* call = &gemv_f32_as<P>;
};

void gemv_i8(Packing packing, const void* panel, std::int64_t k32, const I8Rows& a, float* out) {
  entry_of<GemvI8, void(const void*, std::int64_t, const I8Rows&, float*)>(packing)(panel, k32, a, out);
}
void gemv_f32(Packing packing, const void* panel, std::int64_t k32, const float* x, float* out) {
  entry_of<GemvF32, void(const void*, std::int64_t, const float*, float*)>(packing)(panel, k32, x, out);
}

}  // namespace
}  // namespace fastkv::simd
