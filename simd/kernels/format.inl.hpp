// What each packing consists of, as compile-time constants: the one description behind packed.cpp and all kernels.
#pragma once

#include "simd/packed.hpp"

namespace fastkv::simd {
namespace {

/// See packed.hpp for the meaning of the planes.
struct Format {
  int block = 32;        ///< inputs of a block
  int scale_group = 32;  ///< inputs of a weight scale; 0: float elements
  bool affine = false;   ///< m (32-blocks) or dmin·mn (256-blocks)
  int zero = 0;
  bool nibbles = false, bytes = false, sixes = false, crumbs = false;
  int bit = -1;           ///< position of the bit plane's bit in q, −1: none
  bool levels = false;    ///< nibbles index the IQ4 levels
  int element_bytes = 0;  ///< of float packings

  constexpr bool is_float() const { return scale_group == 0; }
  constexpr bool wide() const { return bytes || levels; }  ///< q may exceed 127
  constexpr int planes_bytes() const {
    return (nibbles ? 256 : 0) + (bytes ? 512 : 0) + (sixes ? 384 : 0) + (crumbs ? 128 : 0) + (bit >= 0 ? 64 : 0);
  }
  constexpr int block_bytes() const {
    if (is_float()) return 32 * kLanes * element_bytes;
    const int halves = 2 * kLanes * (affine ? 2 : 1);
    if (block == 32) return halves + planes_bytes();
    return halves + kLanes * (256 / scale_group + (affine ? 8 : 0)) + 8 * planes_bytes();
  }
};

constexpr Format format(Packing packing) {
  switch (packing) {
    case Packing::q4_0:
      return {.zero = 8, .nibbles = true};
    case Packing::q4_1:
      return {.affine = true, .nibbles = true};
    case Packing::q5_0:
      return {.zero = 16, .nibbles = true, .bit = 4};
    case Packing::q5_1:
      return {.affine = true, .nibbles = true, .bit = 4};
    case Packing::q8_0:
      return {.zero = 128, .bytes = true};
    case Packing::q3_k:
      return {.block = 256, .scale_group = 16, .zero = 4, .crumbs = true, .bit = 2};
    case Packing::q4_k:
      return {.block = 256, .affine = true, .nibbles = true};
    case Packing::q5_k:
      return {.block = 256, .affine = true, .nibbles = true, .bit = 4};
    case Packing::q6_k:
      return {.block = 256, .scale_group = 16, .zero = 32, .sixes = true};
    case Packing::iq4_nl:
      return {.zero = 128, .nibbles = true, .levels = true};
    case Packing::iq4_xs:
      return {.block = 256, .zero = 128, .nibbles = true, .levels = true};
    case Packing::f32:
      return {.scale_group = 0, .element_bytes = 4};
    case Packing::f16:
    case Packing::bf16:
      return {.scale_group = 0, .element_bytes = 2};
  }
  return {};
}

}  // namespace
}  // namespace fastkv::simd
