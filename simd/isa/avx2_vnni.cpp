// Kernels for AVX2 with AVX-VNNI: the integer dot product is one instruction.
#include "simd/kernels/float_bf16.inl.hpp"
#include "simd/kernels/lanes_avx2.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kWideGroup = 256;
inline constexpr bool kPairsIn16Bits = false;
template <bool wide>
FASTKV_INLINE PartI dot_i8(PartI acc, PartI w, PartI a) {
  return {_mm256_dpbusd_avx_epi32(acc.v, w.v, a.v)};
}
FASTKV_INLINE PartF dot_bf16(PartF acc, PartI w, PartI a) { return dot_bf16_float(acc, w, a); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx2Vnni = make_table(Isa::avx2_vnni);
