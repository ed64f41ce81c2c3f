// Kernels for the x86-64 baseline (SSE2).
#include "simd/kernels/float_bf16.inl.hpp"
#include "simd/kernels/lanes_sse2.inl.hpp"

namespace fastkv::simd {
namespace {

inline constexpr int kWideGroup = 256;
inline constexpr bool kPairsIn16Bits = false;
FASTKV_INLINE PartF dot_bf16(PartF acc, PartI w, PartI a) { return dot_bf16_float(acc, w, a); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableScalar = make_table(Isa::scalar);
