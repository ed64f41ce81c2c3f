// A quantised block taken apart: its integers and its scales, whatever the GGUF type.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"

namespace fastkv {

/// w[k] = scale · (q[k] − zero) + offset, in ggml's order of operations:
///   32-blocks     scale = d, offset = m
///   256-blocks    scale = d·sc[k / scale_group], offset = −m·mn[k / 32]
/// For IQ4_NL and IQ4_XS the level kIq4Levels[q[k]] stands for q[k] − zero.
struct BlockParts {
  std::uint8_t q[256];      ///< unsigned integers, inputs in order
  std::uint16_t d = 0;      ///< float16 bits
  std::uint16_t m = 0;      ///< float16 bits of m (32-blocks) or dmin (256-blocks)
  std::int8_t sc[16] = {};  ///< 256-blocks: scale of each 16 or 32 inputs
  std::uint8_t mn[8] = {};  ///< 256-blocks: min of each 32 inputs
};

/// What is the same for every block of a type.
struct BlockShape {
  int zero;          ///< the integer that stands for 0
  int scale_group;   ///< weights that share a scale: 32, or 16 in Q3_K and Q6_K
  bool levels;       ///< codes index kIq4Levels
};
BlockShape block_shape(DType type);

/// Reads one block of a quantised `type` from a GGUF file.
void read_block(DType type, const std::uint8_t* block, BlockParts& parts);

}  // namespace fastkv
