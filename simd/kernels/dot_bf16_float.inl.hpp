// The bfloat16 pair product without AVX512-BF16: both halves widened to float32, even input first.
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

}  // namespace
}  // namespace fastkv::simd
