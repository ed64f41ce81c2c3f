// Kernels for AVX-512 with AVX512-VNNI and AVX512-BF16: both dot products, and rounding, are one instruction.
#include "simd/kernels/dot_vnni.inl.hpp"

namespace fastkv::simd {
namespace {

FASTKV_INLINE F32 dot_bf16(F32 acc, I32 w, I32 a) {
  return {Batch(_mm512_dpbf16_ps(acc.v, (__m512bh)w.v, (__m512bh)a.v))};
}
FASTKV_INLINE void store_bf16(F32 x, std::uint16_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(out), (__m256i)_mm512_cvtneps_pbh(x.v));
}
/// Words r and 16 + r to lane r.
FASTKV_INLINE I32 zip_halves(I32 words) {
  alignas(64) static constexpr std::int16_t kZip[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return {_mm512_permutexvar_epi16(_mm512_load_si512(kZip), words.v)};
}
FASTKV_INLINE I32 pair_bf16(F32 even, F32 odd) { return zip_halves({(__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v)}); }

}  // namespace
}  // namespace fastkv::simd

#include "simd/kernels/attention_decode_bf16.inl.hpp"
#include "simd/kernels/table.inl.hpp"

constinit const fastkv::simd::KernelTable fastkv::simd::kTableAvx512Bf16 =
    make_table(Isa::avx512_bf16, attend_rows_bf16);
