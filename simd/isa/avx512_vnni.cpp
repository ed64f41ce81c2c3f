// Kernels for AVX-512 with AVX512-VNNI: the integer dot product is one instruction.
#include "simd/kernels/dot_vnni.inl.hpp"
#include "simd/kernels/float_bf16.inl.hpp"

namespace fastkv::simd {
namespace {

FASTKV_INLINE F32 dot_bf16(F32 acc, I32 w, I32 a) { return dot_bf16_float(acc, w, a); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx512Vnni = make_table(Isa::avx512_vnni);
