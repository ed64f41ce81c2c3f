// Kernels for AVX-512 with AVX512-VNNI and AVX512-BF16: both dot products are one instruction.
#include "simd/kernels/lanes_avx512.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kWideGroup = 128;
inline constexpr bool kPairsIn16Bits = false;
/// As asm: g++ 12 copies accumulators around the intrinsic, which cost a tile 5 % of the peak.
template <bool wide>
FASTKV_INLINE I32 dot_i8(I32 acc, I32 w, I32 a) {
  asm("vpdpbusd %1, %2, %0" : "+v"(acc.v) : "v"(a.v), "v"(w.v));
  return acc;
}
FASTKV_INLINE F32 dot_bf16(F32 acc, I32 w, I32 a) {
  return {Batch(_mm512_dpbf16_ps(acc.v, (__m512bh)w.v, (__m512bh)a.v))};
}

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx512Bf16 = make_table(Isa::avx512_bf16);
