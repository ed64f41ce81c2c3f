// Matrix products of prompt rows by cuBLASLt: bfloat16 inputs, float32 accumulation.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

namespace fastkv::cuda {

/// The library's handle, its work space and the plans of shapes met so far.
class Gemm {
 public:
  explicit Gemm(cudaStream_t stream);
  ~Gemm();

  /// y [m, out] = x [m, in] · w [out, in]ᵀ + bias; bias bfloat16 [out] or null.
  void multiply(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const __nv_bfloat16* bias,
                std::int64_t out, std::int64_t in, __nv_bfloat16* y);
  /// The same, in float32.
  void multiply(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const __nv_bfloat16* bias,
                std::int64_t out, std::int64_t in, float* y);
  /// y [m, out] float32 += x · wᵀ + bias: the residual stream.
  void add_product(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const __nv_bfloat16* bias,
                   std::int64_t out, std::int64_t in, float* y);
  static std::size_t work_bytes();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fastkv::cuda
