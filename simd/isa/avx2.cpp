// Kernels for AVX2, FMA, F16C and BMI2.
#include "simd/kernels/float_bf16.inl.hpp"
#include "simd/kernels/lanes_avx2.inl.hpp"

namespace fastkv::simd {
namespace {

/// With 32 a group the additions of a group took a tenth of the time; 128 would cost accuracy that pairs have spent.
inline constexpr int kWideGroup = 64;
inline constexpr bool kPairsIn16Bits = true;  // vpmaddubsw
template <bool wide>
FASTKV_INLINE PartI dot_i8(PartI acc, PartI w, PartI a) {
  return dot_i8_maddubs<wide>(acc, w, a);
}
FASTKV_INLINE PartF dot_bf16(PartF acc, PartI w, PartI a) { return dot_bf16_float(acc, w, a); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx2 = make_table(Isa::avx2);
