// From a packed panel to codes, scales and minima, and from those to weights in float32, bfloat16 and rotated int8.
//
// The planes hold bytes as (lane, input mod 4), so that each step of four inputs is one vector of 16 lanes × 4 bytes,
// ready for the integer dot product; taking byte b of every lane gives one input of 16 rows, ready for float
// arithmetic.
#pragma once

#include "simd/kernels/format.inl.hpp"
#include "simd/kernels/rotate.inl.hpp"

namespace fastkv::simd {
namespace {

/// The 16 levels of IQ4_NL and IQ4_XS (−127 −104 −83 … 113), plus 128.
alignas(16) inline constexpr std::uint8_t kIq4Levels[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                            129, 141, 153, 166, 181, 197, 217, 241};

template <Packing P>
inline constexpr Format kFormat = format(P);

FASTKV_INLINE I32 byte_mask(int mask) { return I32::set(mask * 0x01010101); }
/// The bits `mask << from` of every byte moved to `mask << to`.
template <int From, int To>
FASTKV_INLINE I32 move_bits(I32 v, int mask) {
  if constexpr (From > To) v = shift_right<From - To>(v);
  if constexpr (From < To) v = shift_left<To - From>(v);
  return v & byte_mask(mask << To);
}

/// q of step J (inputs 4J .. 4J+3 of 16 rows), unsigned bytes.
template <Packing P, int J>
FASTKV_INLINE I32 codes(const std::uint8_t* planes) {
  if constexpr (kFormat<P>.bytes) {
    return I32::load(planes + 64 * J);
  } else if constexpr (kFormat<P>.sixes) {
    const auto bits = [&](auto i) __attribute__((always_inline)) { return I32::load(planes + 64 * (J / 4 * 3 + i)); };
    if constexpr (J % 4 < 3) return bits(J % 4) & byte_mask(0x3f);
    return move_bits<6, 4>(bits(0), 3) | move_bits<6, 2>(bits(1), 3) | move_bits<6, 0>(bits(2), 3);
  } else {
    I32 q = I32::set(0);
    const std::uint8_t* plane = planes;
    if constexpr (kFormat<P>.nibbles) {
      q = move_bits<(J < 4 ? 0 : 4), 0>(I32::load(plane + 64 * (J % 4)), 0x0f);
      plane += 256;
    }
    if constexpr (kFormat<P>.levels) q = lookup16(kIq4Levels, q);
    if constexpr (kFormat<P>.crumbs) {
      q = q | move_bits<2 * (J % 4), 0>(I32::load(plane + 64 * (J / 4)), 3);
      plane += 128;
    }
    if constexpr (kFormat<P>.bit >= 0) q = q | move_bits<J, kFormat<P>.bit>(I32::load(plane), 1);
    return q;
  }
}

/// One block of 16 rows: its parts found, its half-precision factors converted once.
template <Packing P>
struct Block {
  static constexpr Format f = kFormat<P>;
  static constexpr int groups = f.block / 32;  ///< groups of 32 inputs
  static constexpr int parts = 32 / f.scale_group;
  F32 d, m;
  const std::int8_t* sc;
  const std::uint8_t* mn;
  const std::uint8_t* first;

  /// Block 1, 3, … of its panel: `odd`.
  FASTKV_INLINE Block(const std::uint8_t* p, bool odd) : Block(p, block_offsets(f.block_bytes(), f.affine, odd)) {}
  FASTKV_INLINE Block(const std::uint8_t* p, BlockOffsets at)
      : d(F32::from_f16(reinterpret_cast<const std::uint16_t*>(p + at.d))),
        m(f.affine ? F32::from_f16(reinterpret_cast<const std::uint16_t*>(p + at.rest)) : F32::set(0.f)),
        sc(reinterpret_cast<const std::int8_t*>(p + at.rest + (f.affine ? 32 : 0))),
        mn(reinterpret_cast<const std::uint8_t*>(sc) + 256 / f.scale_group * kLanes),
        first(f.block == 32 ? reinterpret_cast<const std::uint8_t*>(sc) : mn + (f.affine ? 8 * kLanes : 0)) {}
  FASTKV_INLINE const std::uint8_t* planes(int group) const { return first + group * f.planes_bytes(); }
  /// Scale of part `part` (of `parts`) of a group of 32.
  FASTKV_INLINE F32 scale(int group, int part) const {
    if constexpr (f.block == 32) return d;
    return d * F32::from_i8(sc + (group * parts + part) * kLanes);
  }
  FASTKV_INLINE F32 min(int group) const {
    if constexpr (f.block == 32) return F32::set(0.f) - m;
    return m * F32::from_u8(mn + group * kLanes);
  }
};

/// Byte b of every lane plus 2^23, as float: a byte in the low bits of its mantissa, one operation instead of two.
template <int B>
FASTKV_INLINE F32 biased_byte(I32 v) {
  if constexpr (B > 0) v = shift_right<8 * B>(v);
  return as_float((v & I32::set(0xff)) | I32::set(0x4b000000));
}

/// The weights of the 32 inputs of a group, [32][16], as ggml computes them. Compiled once a packing: everything that
/// needs float weights goes through 2 KiB of L1 rather than through its own copy of the decoder.
template <Packing P>
[[gnu::noinline]] void decode_group(const Block<P>& block, int group, float* out) {
  const std::uint8_t* planes = block.planes(group);
  const F32 zero = F32::set(0x1p23f + float(kFormat<P>.zero));
  const F32 min = kFormat<P>.affine ? block.min(group) : F32::set(0.f);
  unroll<8>([&](auto j) __attribute__((always_inline)) {
    const F32 scale = block.scale(group, decltype(j)::value * 4 / kFormat<P>.scale_group);
    const I32 q = codes<P, decltype(j)::value>(planes);
    unroll<4>([&](auto b) __attribute__((always_inline)) {
      F32 w = scale * (biased_byte<decltype(b)::value>(q) - zero);
      if constexpr (kFormat<P>.affine) w = w - min;
      w.store(out + (j * 4 + b) * kLanes);
    });
  });
}

/// The weights of one input of 16 rows of a float packing.
template <Packing P>
FASTKV_INLINE F32 load_weights(const std::uint8_t* elements) {
  if constexpr (P == Packing::f32) return F32::load(reinterpret_cast<const float*>(elements));
  if constexpr (P == Packing::f16) return F32::from_f16(reinterpret_cast<const std::uint16_t*>(elements));
  return F32::from_bf16(reinterpret_cast<const std::uint16_t*>(elements));
}

/// fn(first input k, weights [32][16]) for every 32 inputs of a panel.
template <Packing P, class Fn>
FASTKV_INLINE void for_groups(const void* panel, std::int64_t k32, Fn&& fn) {
  alignas(64) float weights[32 * kLanes];
  const std::uint8_t* p = static_cast<const std::uint8_t*>(panel);
  for (std::int64_t k = 0; k < k32; k += kFormat<P>.block, p += kFormat<P>.block_bytes()) {
    if constexpr (kFormat<P>.is_float()) {
      for (int i = 0; i < 32; ++i) {
        load_weights<P>(p + i * kLanes * kFormat<P>.element_bytes).store(weights + i * kLanes);
      }
      fn(k, weights);
    } else {
      const Block<P> block(p, k / kFormat<P>.block % 2 != 0);
      for (int g = 0; g < Block<P>::groups; ++g) {
        decode_group<P>(block, g, weights);
        fn(k + 32 * g, weights);
      }
    }
  }
}

template <Packing P>
void unpack_f32_as(const void* panel, std::int64_t k32, float* out) {
  for_groups<P>(
      panel, k32, [&](std::int64_t k, const float* weights) __attribute__((always_inline)) {
        std::memcpy(out + k * kLanes, weights, sizeof(float) * 32 * kLanes);
      });
}

template <Packing P>
void unpack_bf16_as(const void* panel, std::int64_t k32, std::uint16_t* out) {
  for_groups<P>(
      panel, k32, [&](std::int64_t k, const float* weights) __attribute__((always_inline)) {
        for (int i = 0; i < 32; i += 2) {
          const float* w = weights + i * kLanes;
          pair_bf16(F32::load(w), F32::load(w + kLanes)).store(out + (k + i) * kLanes);
        }
      });
}

template <Packing P>
void unpack_i8_as(const void* panel, std::int64_t k32, std::uint8_t* q, float* scale) {
  PanelRotation rotation(q, scale);
  for_groups<P>(
      panel, k32, [&](std::int64_t, const float* weights) __attribute__((always_inline)) { rotation.add(weights); });
  rotation.finish();
}

/// The address of Entry<P>::call for a packing known at run time.
template <template <Packing> class Entry, class Fn>
FASTKV_INLINE Fn* entry_of(Packing packing) {
  switch (packing) {
    case Packing::q4_0:
      return Entry<Packing::q4_0>::call;
    case Packing::q4_1:
      return Entry<Packing::q4_1>::call;
    case Packing::q5_0:
      return Entry<Packing::q5_0>::call;
    case Packing::q5_1:
      return Entry<Packing::q5_1>::call;
    case Packing::q8_0:
      return Entry<Packing::q8_0>::call;
    case Packing::q3_k:
      return Entry<Packing::q3_k>::call;
    case Packing::q4_k:
      return Entry<Packing::q4_k>::call;
    case Packing::q5_k:
      return Entry<Packing::q5_k>::call;
    case Packing::q6_k:
      return Entry<Packing::q6_k>::call;
    case Packing::iq4_nl:
      return Entry<Packing::iq4_nl>::call;
    case Packing::iq4_xs:
      return Entry<Packing::iq4_xs>::call;
    case Packing::f32:
      return Entry<Packing::f32>::call;
    case Packing::f16:
      return Entry<Packing::f16>::call;
    case Packing::bf16:
      break;
  }
  return Entry<Packing::bf16>::call;
}

template <Packing P>
struct UnpackI8 {
  static constexpr auto* call = &unpack_i8_as<P>;
};
template <Packing P>
struct UnpackBf16 {
  static constexpr auto* call = &unpack_bf16_as<P>;
};
template <Packing P>
struct UnpackF32 {
  static constexpr auto* call = &unpack_f32_as<P>;
};

void unpack_i8(Packing packing, const void* panel, std::int64_t k32, std::uint8_t* q, float* scale) {
  entry_of<UnpackI8, void(const void*, std::int64_t, std::uint8_t*, float*)>(packing)(panel, k32, q, scale);
}
void unpack_bf16(Packing packing, const void* panel, std::int64_t k32, std::uint16_t* out) {
  entry_of<UnpackBf16, void(const void*, std::int64_t, std::uint16_t*)>(packing)(panel, k32, out);
}
void unpack_f32(Packing packing, const void* panel, std::int64_t k32, float* out) {
  entry_of<UnpackF32, void(const void*, std::int64_t, float*)>(packing)(panel, k32, out);
}

}  // namespace
}  // namespace fastkv::simd
