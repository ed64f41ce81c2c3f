// The resident layout of weights: panels of 16 output rows at the file's bit width, made at load, read by every kernel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastkv::simd {

inline constexpr int kLanes = 16;   ///< output rows of a panel; a tensor's rows are padded to it with zeros
inline constexpr int kGroup = 32;   ///< inputs that share an activation scale; inputs are padded to it with zeros

/// How a tensor is packed. A panel holds 16 rows as a sequence of blocks along k:
///
///   32-blocks    [d f16 x16] [m f16 x16]?  planes
///   256-blocks   [d f16 x16] [dmin f16 x16]?  [sc int8 x16] per 16 or 32 inputs  [mn u8 x16]? per 32  8 x planes
///   float        [k 0..31][16 lanes] elements
///
/// d without m or dmin stands at the end of a panel's blocks 0, 2, … and at the begin of 1, 3, …: two of them share a
/// line of 64 bytes, and all else lies on whole lines (of every other panel, where panels have an odd number of blocks).
///
/// planes of 32 inputs, in bytes of (lane r, b < 4); "step" j < 8 covers inputs 4j .. 4j+3:
///   nibbles  4 x 64 B: vector j < 4, byte (r, b): low half = input 4j+b, high half = input 16+4j+b
///   bytes    8 x 64 B: vector j, byte (r, b) = input 4j+b
///   bit      1 x 64 B: byte (r, b), bit j = top bit of input 4j+b
///   crumbs   2 x 64 B: vector t, byte (r, b), bits 2i, 2i+1 = two bits of input 4(4t+i)+b
///   sixes    6 x 64 B: vector 3h+i, byte (r, b): low six bits = input 16h+4i+b; top two of i = 0, 1, 2 = bits 4-5, 2-3,
///            0-1 of input 16h+12+b
///
/// A weight is  w = scale · (q − zero) − min  with q the unsigned integer of the planes:
enum class Packing : std::uint8_t {
  q4_0,    ///< nibbles, zero 8, d
  q4_1,    ///< nibbles, zero 0, d, m (w = d·q + m)
  q5_0,    ///< nibbles + bit (·16), zero 16, d
  q5_1,    ///< nibbles + bit, zero 0, d, m
  q8_0,    ///< bytes (q = int8 + 128), zero 128, d
  q3_k,    ///< crumbs + bit (·4), zero 4, d·sc per 16, sc = six-bit scale − 32
  q4_k,    ///< nibbles, zero 0, d·sc per 32, dmin·mn per 32
  q5_k,    ///< nibbles + bit, zero 0, d·sc, dmin·mn per 32
  q6_k,    ///< sixes, zero 32, d·sc per 16
  iq4_nl,  ///< nibbles through the 16 levels (q = level + 128), zero 128, d
  iq4_xs,  ///< as iq4_nl, 256-blocks, d·sc per 32, sc = six-bit scale − 32
  f32,
  f16,
  bf16,
};
inline constexpr int kPackings = 14;

struct PackingInfo {
  Packing packing;
  int block;          ///< inputs per block (32 or 256)
  int block_bytes;    ///< bytes of a block of 16 rows
  int scale_group;    ///< inputs that share a weight scale: 16 or 32; 0: float
  bool affine;        ///< has m or dmin·mn
  int zero;           ///< the zero point
};
const PackingInfo& info(Packing packing);  // simd/packed.cpp

/// From a panel's block to its d, and to the first of m, sc and planes.
struct BlockOffsets {
  int d, rest;
};
constexpr BlockOffsets block_offsets(int block_bytes, bool affine, bool odd) {
  constexpr int kHalves = 2 * kLanes;
  if (affine || odd) return {0, kHalves};
  return {block_bytes - kHalves, 0};
}

/// Bytes of one panel with `k` inputs (a multiple of the block).
inline std::size_t panel_bytes(Packing packing, std::int64_t k) {
  return std::size_t(k / info(packing).block) * std::size_t(info(packing).block_bytes);
}

}  // namespace fastkv::simd
