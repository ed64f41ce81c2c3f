// Kernels for AMX with bfloat16 tiles; whatever has no tile version is avx512_bf16's (kernels.cpp fills the gaps).
#include "simd/isa/tables.hpp"
#include "simd/kernels/attention_amx.inl.hpp"
#include "simd/kernels/gemm_amx.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAmxBf16 = {
    .isa = Isa::amx_bf16,
    .wide_group = 256,
    .gemm_bf16 = gemm_bf16,
    .pack_keys_bf16 = pack_keys_bf16,
    .pack_values_bf16 = pack_values_bf16,
    .attend_bf16 = attend_bf16,
};
