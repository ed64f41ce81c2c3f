// One activation row times packed panels at the memory's speed: weights are unpacked in registers, 16 outputs in 16
// lanes, read once; several panels advance together.
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

/// Panels read side by side. Each is a stream of its own, which keeps more cache misses under way than one: with 4, two
/// Granite Rapids cores read q4_0 at 23.5 GB/s instead of 19.1 (a plain sequential read: 22 to 26).
inline constexpr int kStreams = kVectorBits == 512 ? 4 : 2;
/// How far ahead of its use a panel's byte is fetched.
inline constexpr std::int64_t kAhead = 1024;

/// Where N panels, `stride` bytes each and one behind the other, are to be fetched while they are read: kAhead bytes
/// ahead, then the heads of the N panels that follow.
template <int N>
class Prefetch {
 public:
  FASTKV_INLINE Prefetch(const std::uint8_t* panels, std::int64_t stride)
      : at_(panels + kAhead), jump_(panels + stride), stride_(stride) {}
  /// Called once for each `Bytes` that every panel advances by.
  template <int Bytes>
  FASTKV_INLINE void next() {
    if (at_ >= jump_) {
      at_ += (N - 1) * stride_;
      jump_ += N * stride_;
    }
    unroll<N>([&](auto n) __attribute__((always_inline)) {
      unroll<(Bytes + 63) / 64>([&](auto line) __attribute__((always_inline)) {
        _mm_prefetch(reinterpret_cast<const char*>(at_ + n * stride_ + line * 64), _MM_HINT_T0);
      });
    });
    at_ += Bytes;
  }

 private:
  const std::uint8_t *at_, *jump_;
  std::int64_t stride_;
};

template <Packing P, int N>
FASTKV_INLINE void gemv_i8_panels(const std::uint8_t* p, std::int64_t k32, const I8Rows& a, float* out) {
  constexpr int kParts = Block<P>::parts;
  const std::int64_t stride = k32 / kFormat<P>.block * kFormat<P>.block_bytes();
  Prefetch<N> prefetch(p, stride);
  F32 acc[N];
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n] = F32::set(0.f); });
  for (std::int64_t k = 0; k < k32; k += kFormat<P>.block, p += kFormat<P>.block_bytes()) {
    for (int g = 0; g < Block<P>::groups; ++g) {
      prefetch.template next<kFormat<P>.block_bytes() / Block<P>::groups>();
      const std::int64_t group = k / kGroup + g;
      const std::int8_t* q = a.q + group * kGroup;
      const std::int32_t* sums = a.sum + 2 * group;
      const F32 a_scale = F32::set(a.scale[group]);
      unroll<kParts>([&](auto part) __attribute__((always_inline)) {
        const std::int32_t sum = kParts == 1 ? sums[0] + sums[1] : sums[part];
        I32 dot[N];
        unroll<N>([&](auto n) __attribute__((always_inline)) { dot[n] = I32::set(-kFormat<P>.zero * sum); });
        unroll<8 / kParts>([&](auto step) __attribute__((always_inline)) {
          constexpr int j = decltype(part)::value * 4 + decltype(step)::value;
          const I32 x = I32::set(read<std::int32_t>(q + 4 * j));
          unroll<N>([&](auto n) __attribute__((always_inline)) {
            dot[n] = dot_i8<kFormat<P>.wide()>(dot[n], codes<P, j>(Block<P>(p + n * stride).planes(g)), x);
          });
        });
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          const Block<P> block(p + n * stride);
          if constexpr (kFormat<P>.affine) {
            acc[n] = add_group(acc[n], dot[n], a_scale, block.scale(g, part), block.min(g), F32::set(-float(sum)));
          } else {
            acc[n] = add_group(acc[n], dot[n], a_scale, block.scale(g, part));
          }
        });
      });
    }
  }
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n].store(out + n * kLanes); });
}

template <Packing P, int N>
FASTKV_INLINE void gemv_f32_panels(const std::uint8_t* p, std::int64_t k32, const float* x, float* out) {
  constexpr int kGroups = kFormat<P>.block / 32;
  const std::int64_t stride = k32 / kFormat<P>.block * kFormat<P>.block_bytes();
  Prefetch<N> prefetch(p, stride);
  alignas(64) float weights[N][kFormat<P>.is_float() ? 1 : 32 * kLanes];
  F32 acc[N];
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n] = F32::set(0.f); });
  for (std::int64_t k = 0; k < k32; k += kFormat<P>.block, p += kFormat<P>.block_bytes()) {
    for (int g = 0; g < kGroups; ++g) {
      prefetch.template next<kFormat<P>.block_bytes() / kGroups>();
      if constexpr (!kFormat<P>.is_float()) {
        unroll<N>([&](auto n)
                      __attribute__((always_inline)) { decode_group<P>(Block<P>(p + n * stride), g, weights[n]); });
      }
      for (int i = 0; i < 32; ++i) {
        const F32 input = F32::set(x[k + 32 * g + i]);
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          if constexpr (kFormat<P>.is_float()) {
            acc[n] = fma(input, load_weights<P>(p + n * stride + i * kLanes * kFormat<P>.element_bytes), acc[n]);
          } else {
            acc[n] = fma(input, F32::load(weights[n] + i * kLanes), acc[n]);
          }
        });
      }
    }
  }
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n].store(out + n * kLanes); });
}

/// fn(Index<N>, first panel, its address) over `count` panels: kStreams at a time, the rest one by one.
template <Packing P, class Fn>
FASTKV_INLINE void for_streams(const void* panels, std::int64_t k32, std::int64_t count, Fn&& fn) {
  const std::uint8_t* p = static_cast<const std::uint8_t*>(panels);
  const std::int64_t stride = k32 / kFormat<P>.block * kFormat<P>.block_bytes();
  std::int64_t i = 0;
  for (; i + kStreams <= count; i += kStreams) fn(Index<kStreams>{}, i, p + i * stride);
  if constexpr (kStreams > 2) {
    if (i + 2 <= count) fn(Index<2>{}, i, p + i * stride), i += 2;
  }
  for (; i < count; ++i) fn(Index<1>{}, i, p + i * stride);
}

template <Packing P>
void gemv_i8_as(const void* panels, std::int64_t k32, const I8Rows& a, std::int64_t count, float* out) {
  if constexpr (!kFormat<P>.is_float()) {
    for_streams<P>(
        panels, k32, count, [&](auto n, std::int64_t i, const std::uint8_t* p) __attribute__((always_inline)) {
          gemv_i8_panels<P, decltype(n)::value>(p, k32, a, out + i * kLanes);
        });
  }
}

template <Packing P>
void gemv_f32_as(const void* panels, std::int64_t k32, const float* x, std::int64_t count, float* out) {
  for_streams<P>(
      panels, k32, count, [&](auto n, std::int64_t i, const std::uint8_t* p) __attribute__((always_inline)) {
        gemv_f32_panels<P, decltype(n)::value>(p, k32, x, out + i * kLanes);
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

void gemv_i8(Packing packing, const void* panels, std::int64_t k32, const I8Rows& a, std::int64_t count, float* out) {
  entry_of<GemvI8, void(const void*, std::int64_t, const I8Rows&, std::int64_t, float*)>(packing)(panels, k32, a, count,
                                                                                                  out);
}
void gemv_f32(Packing packing, const void* panels, std::int64_t k32, const float* x, std::int64_t count, float* out) {
  entry_of<GemvF32, void(const void*, std::int64_t, const float*, std::int64_t, float*)>(packing)(panels, k32, x, count,
                                                                                                  out);
}

}  // namespace
}  // namespace fastkv::simd
