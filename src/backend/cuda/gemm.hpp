// Matrix products of prompt rows by cuBLASLt: bfloat16 inputs, float32 accumulation.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace fastkv::cuda {

/// Which of its algorithms the library may take.
enum class Algorithms {
  for_any_rows,  ///< what a Gemm promises below
  first_choice   ///< for exactly the rows of a call, summed as it likes: what the promise costs is measured beside it
};

/// The library's handle, its work space and the algorithms of shapes met so far.
///
/// One algorithm serves a shape [out, in] whatever m is, and sums each product in one sequence: a row's result does not
/// depend on the rows beside it.
class Gemm {
 public:
  explicit Gemm(cudaStream_t stream, Algorithms algorithms = Algorithms::for_any_rows);
  ~Gemm();

  /// Algorithms from now on suit products of `rows` rows or more (by powers of 8); until then, of 4096. A row's result
  /// depends on this: to be called once for a prompt, with its length. Without effect on first choices.
  void expect_rows(std::int64_t rows);

  /// y [m, out] = x [m, in] · w [out, in]ᵀ + bias [out], which has y's type or is null.
  void multiply(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const __nv_bfloat16* bias,
                std::int64_t out, std::int64_t in, __nv_bfloat16* y);
  void multiply(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const float* bias, std::int64_t out,
                std::int64_t in, float* y);
  /// y [m, out] += x · wᵀ + bias: the residual stream.
  void add_product(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const float* bias, std::int64_t out,
                   std::int64_t in, float* y);
  static std::size_t work_bytes();  ///< of device memory
  static std::string version();     ///< "cublasLt 13.0.2"

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fastkv::cuda
