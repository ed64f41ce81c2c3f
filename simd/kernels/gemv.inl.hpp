// One activation row times packed panels at the memory's speed: weights are unpacked in registers, 16 outputs in 16
// lanes, read once; two panels advance together.
#pragma once

#include "simd/kernels/unpack.inl.hpp"

namespace fastkv::simd {
namespace {

/// acc += a.scale · (b.scale · dot − b.min · Σq); `minus_sum` = −Σq of the group as a float.
FASTKV_INLINE F32 add_group(F32 acc, I32 dot, F32 a_scale, F32 b_scale) {
  return fma(to_float(dot) * b_scale, a_scale, acc);
}
FASTKV_INLINE F32 add_group(F32 acc, I32 dot, F32 a_scale, F32 b_scale, F32 b_min, F32 minus_sum) {
  return fma(fma(b_min, minus_sum, to_float(dot) * b_scale), a_scale, acc);
}

/// How far ahead of its use a panel's byte is fetched. Blocks of 256 inputs have their factors in front of all their
/// planes; q4_k came at 30.9 GB/s with 2048 and 26.1 with 1024, formats of 32 inputs are as fast with 512 to 1024.
template <Packing P>
inline constexpr std::int64_t kAhead = kFormat<P>.block == 256 ? 2048 : 768;

/// Fetches the `Bytes` that lie kAhead<P> bytes ahead. Each panel's turn starts with this and reads as much, so that a
/// core asks memory for whole runs of lines of one stream: bfloat16 weights come 10 % faster to two Granite Rapids
/// cores than in alternating lines of four neighbouring panels, q4_0 1 to 2 %.
template <Packing P, int Bytes>
FASTKV_INLINE void fetch_ahead(const std::uint8_t* at) {
  unroll<(Bytes + 63) / 64>([&](auto line) __attribute__((always_inline)) {
    _mm_prefetch(reinterpret_cast<const char*>(at + kAhead<P> + line * 64), _MM_HINT_T0);
  });
}

/// N panels `apart` bytes from each other; the output of panel n at out + n·ldo.
template <Packing P, int N>
FASTKV_INLINE void gemv_i8_panels(const std::uint8_t* p, std::int64_t apart, std::int64_t k32, const I8Rows& a,
                                  float* out, std::int64_t ldo) {
  constexpr int kParts = Block<P>::parts, kBytes = kFormat<P>.block_bytes() / Block<P>::groups;
  const std::int8_t* q = a.q;
  const float* scale = a.scale;
  const std::int32_t* sums = a.sum;
  F32 acc[N];
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n] = F32::set(0.f); });
  for (std::int64_t k = 0; k < k32; k += kFormat<P>.block, p += kFormat<P>.block_bytes()) {
    for (int g = 0; g < Block<P>::groups; ++g, q += kGroup, ++scale, sums += 2) {
      const F32 a_scale = F32::set(*scale);
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        fetch_ahead<P, kBytes>(p + n * apart + g * kBytes);
        const Block<P> block(p + n * apart);
        unroll<kParts>([&](auto part) __attribute__((always_inline)) {
          const std::int32_t sum = kParts == 1 ? sums[0] + sums[1] : sums[part];
          I32 dot = I32::set(-kFormat<P>.zero * sum);
          unroll<8 / kParts>([&](auto step) __attribute__((always_inline)) {
            constexpr int j = decltype(part)::value * 4 + decltype(step)::value;
            dot = dot_i8<kFormat<P>.wide()>(dot, codes<P, j>(block.planes(g)), I32::set(read<std::int32_t>(q + 4 * j)));
          });
          if constexpr (kFormat<P>.affine) {
            acc[n] = add_group(acc[n], dot, a_scale, block.scale(g, part), block.min(g), F32::set(-float(sum)));
          } else {
            acc[n] = add_group(acc[n], dot, a_scale, block.scale(g, part));
          }
        });
      });
    }
  }
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n].store(out + n * ldo); });
}

template <Packing P, int N>
FASTKV_INLINE void gemv_f32_panels(const std::uint8_t* p, std::int64_t apart, std::int64_t k32, const float* x,
                                   float* out, std::int64_t ldo) {
  F32 acc[N];
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n] = F32::set(0.f); });
  if constexpr (kFormat<P>.is_float()) {
    constexpr int kInput = kLanes * kFormat<P>.element_bytes, kInputs = 256 / kInput;  // of a turn
    for (std::int64_t k = 0; k < k32; k += kInputs, p += 256) {
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const std::uint8_t* at = p + n * apart;
        fetch_ahead<P, 256>(at);
        unroll<kInputs>([&](auto i) __attribute__((always_inline)) {
          acc[n] = fma(F32::set(x[k + i]), load_weights<P>(at + i * kInput), acc[n]);
        });
      });
    }
  } else {
    constexpr int kGroups = Block<P>::groups, kBytes = kFormat<P>.block_bytes() / kGroups;
    alignas(64) float weights[32 * kLanes];
    for (std::int64_t k = 0; k < k32; k += kFormat<P>.block, p += kFormat<P>.block_bytes()) {
      for (int g = 0; g < kGroups; ++g) {
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          fetch_ahead<P, kBytes>(p + n * apart + g * kBytes);
          decode_group<P>(Block<P>(p + n * apart), g, weights);
          for (int i = 0; i < 32; ++i)
            acc[n] = fma(F32::set(x[k + 32 * g + i]), F32::load(weights + i * kLanes), acc[n]);
        });
      }
    }
  }
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n].store(out + n * ldo); });
}

/// fn(Index<N>, panel, its output, distance of the N outputs) over `count` panels and as many `apart` bytes behind
/// them, or `count` alone if apart is 0.
template <Packing P, class Fn>
FASTKV_INLINE void for_panels(const void* panels, std::int64_t apart, std::int64_t k32, std::int64_t count, float* out,
                              Fn&& fn) {
  const std::uint8_t* p = static_cast<const std::uint8_t*>(panels);
  for (std::int64_t i = 0; i < count; ++i, out += kLanes, p += k32 / kFormat<P>.block * kFormat<P>.block_bytes()) {
    if (apart)
      fn(Index<2>{}, p, out, count * kLanes);
    else
      fn(Index<1>{}, p, out, 0);
  }
}

template <Packing P>
void gemv_i8_as(const void* panels, std::int64_t apart, std::int64_t k32, const I8Rows& a, std::int64_t count,
                float* out) {
  if constexpr (!kFormat<P>.is_float()) {
    for_panels<P>(
        panels, apart, k32, count,
        out, [&](auto n, const std::uint8_t* p, float* to, std::int64_t ldo) __attribute__((always_inline)) {
          gemv_i8_panels<P, decltype(n)::value>(p, apart, k32, a, to, ldo);
        });
  }
}

template <Packing P>
void gemv_f32_as(const void* panels, std::int64_t apart, std::int64_t k32, const float* x, std::int64_t count,
                 float* out) {
  for_panels<P>(
      panels, apart, k32, count,
      out, [&](auto n, const std::uint8_t* p, float* to, std::int64_t ldo) __attribute__((always_inline)) {
        gemv_f32_panels<P, decltype(n)::value>(p, apart, k32, x, to, ldo);
      });
}

template <Packing P>
struct GemvI8 {
  static constexpr auto* call = &gemv_i8_as<P>;
};
template <Packing P>
struct GemvF32 {
  static constexpr auto* call = &gemv_f32_as<P>;
};

void gemv_i8(Packing packing, const void* panels, std::int64_t apart, std::int64_t k32, const I8Rows& a,
             std::int64_t count, float* out) {
  entry_of<GemvI8, void(const void*, std::int64_t, std::int64_t, const I8Rows&, std::int64_t, float*)>(packing)(
      panels, apart, k32, a, count, out);
}
void gemv_f32(Packing packing, const void* panels, std::int64_t apart, std::int64_t k32, const float* x,
              std::int64_t count, float* out) {
  entry_of<GemvF32, void(const void*, std::int64_t, std::int64_t, const float*, std::int64_t, float*)>(packing)(
      panels, apart, k32, x, count, out);
}

}  // namespace
}  // namespace fastkv::simd
