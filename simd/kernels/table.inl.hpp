// All kernel families of one ISA level as a table. Include after a lanes_*.inl.hpp, kWideGroup, kPairsIn16Bits, dot_i8
// and dot_bf16.
#pragma once

#include "simd/isa/tables.hpp"
#include "simd/kernels/attention_decode.inl.hpp"
#include "simd/kernels/attention_prefill.inl.hpp"
#include "simd/kernels/gemm_f32.inl.hpp"
#include "simd/kernels/gemm_i8.inl.hpp"
#include "simd/kernels/gemv.inl.hpp"
#include "simd/kernels/pack.inl.hpp"
#include "simd/kernels/rows.inl.hpp"
#include "simd/kernels/softmax.inl.hpp"

namespace fastkv::simd {
namespace {

constexpr KernelTable make_table(Isa isa, decltype(KernelTable::attend_rows_bf16) narrow_rows = attend_rows) {
  return {
      .isa = isa,
      .wide_group = kWideGroup,
      .unpack_i8 = unpack_i8,
      .unpack_bf16 = unpack_bf16,
      .unpack_f32 = unpack_f32,
      .quantize_i8 = quantize_i8,
      .rotate_i8 = rotate_i8,
      .gemm_i8 = gemm_i8,
      .gemm_bf16 = gemm_bf16,
      .gemm_f32 = gemm_f32,
      .gemv_i8 = gemv_i8,
      .gemv_f32 = gemv_f32,
      .rms_norm = rms_norm,
      .add = add,
      .scale = scale,
      .axpy = axpy,
      .silu_mul = silu_mul,
      .silu_mul_narrow = silu_mul_narrow,
      .rope = rope,
      .f32_to_bf16 = f32_to_bf16,
      .pack_keys_f32 = pack_keys_f32,
      .pack_keys_bf16 = pack_keys_bf16,
      .pack_values_f32 = pack_values_f32,
      .pack_values_bf16 = pack_values_bf16,
      .attend_f32 = attend_f32,
      .attend_bf16 = attend_bf16,
      .row_max = row_max,
      .exp_sum = exp_sum,
      .encode_row = encode_row,
      .encode_key = encode_key,
      .decode_row = decode_row,
      .attend_keys = attend_keys,
      .attend_rows = attend_rows,
      .attend_rows_bf16 = narrow_rows,
  };
}

}  // namespace
}  // namespace fastkv::simd
