// Kernels for AVX2, FMA, F16C and BMI2.
#include "simd/kernels/dot_bf16_float.inl.hpp"
#include "simd/kernels/lanes_avx2.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kWeightZero = 64, kWideGroup = 32;  // two products of 127 · 127 fit into 16 bits
template <bool wide>
FASTKV_INLINE PartI dot_i8(PartI acc, PartI w, PartI a) {
  return dot_i8_maddubs<wide>(acc, w, a);
}
FASTKV_INLINE PartF dot_bf16(PartF acc, PartI w, PartI a) { return dot_bf16_float(acc, w, a); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx2 = make_table(Isa::avx2);
