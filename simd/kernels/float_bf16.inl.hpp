// bfloat16 without AVX512-BF16: rounding in integers; the pair product with both halves widened to float32, even input
// first.
#pragma once

#include "simd/kernels/pair.inl.hpp"

namespace fastkv::simd {
namespace {

template <class F, class I>
FASTKV_INLINE F dot_bf16_float(F acc, I w, I a) {
  const I high = I::set(int(0xffff0000));
  const F even = fma(as_float(shift_left<16>(w)), as_float(shift_left<16>(a)), acc);
  return fma(as_float(w & high), as_float(a & high), even);
}

/// Float to bfloat16 in the high half of each lane, nearest even; NaN becomes a quiet NaN. The low half is rubbish.
template <class F>
FASTKV_INLINE auto round_bf16(F x) {
  const auto bits = as_int(x), nan = nan_mask(x);
  const auto set = [](int value) __attribute__((always_inline)) { return decltype(as_int(x))::set(value); };
  const auto rounded = bits + set(0x7fff) + (shift_right<16>(bits) & set(1));
  return (nan & (bits | set(0x400000))) | ((nan ^ set(-1)) & rounded);
}
template <class F>
FASTKV_INLINE void store_bf16(F x, std::uint16_t* out) {
  shift_right<16>(round_bf16(x)).to_u16(out);
}
/// Two vectors as bfloat16 pairs: lane r = (even[r], odd[r]).
template <class F>
FASTKV_INLINE auto pair_bf16(F even, F odd) {
  return shift_right<16>(round_bf16(even)) | (round_bf16(odd) & decltype(as_int(even))::set(int(0xffff0000)));
}

}  // namespace
}  // namespace fastkv::simd
