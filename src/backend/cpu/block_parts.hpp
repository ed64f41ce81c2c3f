// A quantised block taken apart: its integers and its scales, whatever the GGUF type.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"

namespace fastkv::cpu {

/// w[k] = scale(k) · (q[k] − zero) − min(k), as simd/packed.hpp defines for each packing.
struct BlockParts {
  std::uint8_t q[256];      ///< unsigned integers, inputs in order
  std::uint16_t d = 0;      ///< float16 bits
  std::uint16_t m = 0;      ///< float16 bits of m (32-blocks) or dmin (256-blocks)
  std::int8_t sc[16] = {};  ///< 256-blocks: scale of each 16 or 32 inputs
  std::uint8_t mn[8] = {};  ///< 256-blocks: min of each 32 inputs
};

/// Reads one block of a quantised `type` from a GGUF file.
void read_block(DType type, const std::uint8_t* block, BlockParts& parts);

}  // namespace fastkv::cpu
