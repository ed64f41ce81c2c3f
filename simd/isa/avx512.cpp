// Kernels for AVX-512 F, CD, BW, DQ, VL.
#include "simd/kernels/float_bf16.inl.hpp"
#include "simd/kernels/lanes_avx512.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kWideGroup = 64;
inline constexpr bool kPairsIn16Bits = true;  // vpmaddubsw
template <bool wide>
FASTKV_INLINE I32 dot_i8(I32 acc, I32 w, I32 a) {
  return dot_i8_maddubs<wide>(acc, w, a);
}
template <bool wide>
FASTKV_INLINE I32 dot_i8(I32 acc, I32 w, const std::int8_t* a) {
  return dot_i8<wide>(acc, w, I32::set(read<std::int32_t>(a)));
}
FASTKV_INLINE F32 dot_bf16(F32 acc, I32 w, I32 a) { return dot_bf16_float(acc, w, a); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx512 = make_table(Isa::avx512);
