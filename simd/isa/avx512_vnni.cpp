// Kernels for AVX-512 with AVX512-VNNI: the integer dot product is one instruction.
#include "simd/kernels/float_bf16.inl.hpp"
#include "simd/kernels/lanes_avx512.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kWideGroup = 256;
inline constexpr bool kPairsIn16Bits = false;
/// As asm: g++ 12 copies accumulators around the intrinsic, which cost a tile 5 % of the peak.
template <bool wide>
FASTKV_INLINE I32 dot_i8(I32 acc, I32 w, I32 a) {
  asm("vpdpbusd %1, %2, %0" : "+v"(acc.v) : "v"(a.v), "v"(w.v));
  return acc;
}
FASTKV_INLINE F32 dot_bf16(F32 acc, I32 w, I32 a) { return dot_bf16_float(acc, w, a); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx512Vnni = make_table(Isa::avx512_vnni);
