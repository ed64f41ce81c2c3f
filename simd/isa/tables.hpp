// The one symbol that each translation unit of isa/ exports. The tables are constant-initialised, so reading one runs
// no instruction of its level.
#pragma once

#include "simd/kernels.hpp"

namespace fastkv::simd {

extern const KernelTable kTableScalar, kTableAvx2, kTableAvx2Vnni, kTableAvx512, kTableAvx512Vnni, kTableAvx512Bf16,
    kTableAmxBf16;  ///< null: the entry of avx512_bf16

}  // namespace fastkv::simd
