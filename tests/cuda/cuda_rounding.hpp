// Where and how far the CUDA backend rounds, for bounds measured by an oracle that does (support/spread.hpp).
#pragma once

#include <cmath>

#include "reference/oracle.hpp"

namespace fastkv::test {

/// bfloat16 products; queries, keys, values and probabilities of a prompt in float16; a cache of bfloat16.
inline Rounding cuda_rounding() {
  Rounding rounding = Rounding::bf16();
  rounding.cache = rounding.attention;
  rounding.attention = std::ldexp(1.0, -11);
  return rounding;
}

}  // namespace fastkv::test
