// The emulated cuBLASLt: checks what the library would refuse, then multiplies in float32, each sum in one sequence.
#include <algorithm>
#include <cstring>
#include <vector>

#include "control.hpp"
#include "cublasLt.h"
#include "workers.hpp"

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  std::int32_t trans_a = CUBLAS_OP_N, trans_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType_t type;
  std::uint64_t rows, columns;
  std::int64_t ld;
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t work_bytes = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignments[4] = {256, 256, 256, 256};  ///< of A, B, C, D
};

namespace {

using Matrix = cublasLtMatrixLayoutOpaque_t;
constexpr int kRows = 4, kColumns = 64;  ///< of a register tile
constexpr std::uint64_t kMagic = 0xa190;

template <class T>
cublasStatus_t store(const void* value, std::size_t bytes, T& to) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

/// op(A) [m, k], op(B) [k, n]; 0: they do not fit, or are of types that the library does not multiply.
struct Shape {
  std::int64_t m = 0, n = 0, k = 0;
};
Shape shape_of(const cublasLtMatmulDescOpaque_t& operation, const Matrix& a, const Matrix& b, const Matrix& c,
               const Matrix& d) {
  const bool ta = operation.trans_a == CUBLAS_OP_T, tb = operation.trans_b == CUBLAS_OP_T;
  const std::uint64_t m = ta ? a.columns : a.rows, k = ta ? a.rows : a.columns, n = tb ? b.rows : b.columns;
  const bool fits = (tb ? b.columns : b.rows) == k && c.rows == m && c.columns == n && d.rows == m && d.columns == n;
  const bool types = a.type == b.type && c.type == d.type && (a.type == CUDA_R_16BF || d.type == CUDA_R_32F);
  const bool epilogue = operation.epilogue == CUBLASLT_EPILOGUE_DEFAULT || operation.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (!fits || !types || !epilogue) return {};
  return {std::int64_t(m), std::int64_t(n), std::int64_t(k)};
}

float load(const void* from, cudaDataType_t type, std::int64_t at) {
  return type == CUDA_R_32F ? static_cast<const float*>(from)[at] : float(static_cast<const __nv_bfloat16*>(from)[at]);
}

bool aligned(const void* at, std::uint64_t bytes) { return reinterpret_cast<std::uintptr_t>(at) % bytes == 0; }

/// sums [kRows][kColumns] = x [kRows][k] · y [k][kColumns], k ascending. One variant per instruction set: the same
/// operations on every machine, since nothing is contracted.
__attribute__((target_clones("avx512f", "avx2", "default"))) void multiply_tile(const float* x, const float* y,
                                                                                std::int64_t k, float* sums) {
  using Lanes = float __attribute__((vector_size(64), aligned(4)));
  constexpr int kParts = kColumns / 16;
  Lanes sum[kRows][kParts] = {};
  for (std::int64_t i = 0; i < k; ++i) {
    Lanes right[kParts];
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) right[p] = *reinterpret_cast<const Lanes*>(y + i * kColumns + p * 16);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) sum[r][p] += x[r * k + i] * right[p];
    }
  }
  std::memcpy(sums, sum, sizeof sum);
}

/// What an algorithm was made for, which cublasLtMatmul() holds the caller to. The first that the heuristic gives can
/// do nothing but the product that was asked about, the second any number of columns.
struct Promised {
  std::uint64_t magic, kind;
  std::int64_t m, k, n;  ///< n 0: any
  std::uint32_t alignments[4];
};
static_assert(sizeof(Promised) <= sizeof(cublasLtMatmulAlgo_t));

std::uint64_t kind_of(const cublasLtMatmulDescOpaque_t& operation, const Matrix& a, const Matrix& d) {
  return std::uint64_t(a.type) << 32 | std::uint64_t(d.type) << 16 | operation.epilogue;
}

cublasStatus_t serves(const cublasLtMatmulAlgo_t& algorithm, const cublasLtMatmulDescOpaque_t& operation,
                      const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& d) {
  Promised promised;
  std::memcpy(&promised, algorithm.data, sizeof promised);
  const Shape shape = shape_of(operation, a, b, c, d);
  if (promised.magic != kMagic || promised.kind != kind_of(operation, a, d) || promised.m != shape.m ||
      promised.k != shape.k)
    return CUBLAS_STATUS_INVALID_VALUE;
  return promised.n == 0 || promised.n == shape.n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

struct Call {
  Shape shape;
  cublasLtMatmulDescOpaque_t operation;
  const void *a, *b, *c;
  Matrix a_layout, b_layout, c_layout, d_layout;
  void* d;
  float alpha, beta;
};

/// Columns [first, first + kColumns) of op(A)ᵀ, which are rows of D, for all columns of D.
void multiply_rows(const Call& call, std::int64_t first) {
  const auto [m, n, k] = call.shape;
  std::vector<float> left(std::size_t(k) * kColumns), right(std::size_t(k) * kRows);
  float sums[kRows * kColumns];
  const bool ta = call.operation.trans_a == CUBLAS_OP_T, tb = call.operation.trans_b == CUBLAS_OP_T;
  const std::int64_t rows = std::min<std::int64_t>(kColumns, m - first);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t z = 0; z < k; ++z) {
      const std::int64_t at = ta ? (first + i) * call.a_layout.ld + z : z * call.a_layout.ld + first + i;
      left[std::size_t(z * kColumns + i)] = load(call.a, call.a_layout.type, at);
    }
  for (std::int64_t column = 0; column < n; column += kRows) {
    const std::int64_t columns = std::min<std::int64_t>(kRows, n - column);
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t z = 0; z < k; ++z) {
        const std::int64_t at = tb ? z * call.b_layout.ld + column + j : (column + j) * call.b_layout.ld + z;
        right[std::size_t(j * k + z)] = load(call.b, call.b_layout.type, at);
      }
    multiply_tile(right.data(), left.data(), k, sums);
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t i = 0; i < rows; ++i) {
        float value = call.alpha * sums[j * kColumns + i];
        if (call.beta != 0) {
          value += call.beta * load(call.c, call.c_layout.type, (column + j) * call.c_layout.ld + first + i);
        }
        if (call.operation.epilogue == CUBLASLT_EPILOGUE_BIAS) {
          value += load(call.operation.bias, call.d_layout.type, first + i);
        }
        const std::int64_t at = (column + j) * call.d_layout.ld + first + i;
        if (call.d_layout.type == CUDA_R_32F) {
          static_cast<float*>(call.d)[at] = value;
        } else {
          static_cast<__nv_bfloat16*>(call.d)[at] = __nv_bfloat16(value);
        }
      }
  }
}

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "<unknown>";
}
std::size_t cublasLtGetVersion() { return 130002; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (!emulation::device().present) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *operation = new cublasLtMatmulDescOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return store(value, bytes, operation->trans_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return store(value, bytes, operation->trans_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return store(value, bytes, operation->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return store(value, bytes, operation->bias);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete operation;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t ld) {
  if (ld < std::int64_t(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = new Matrix{type, rows, columns, ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return store(value, bytes, preference->work_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return store(value, bytes, preference->reductions);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return store(value, bytes, preference->alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES]);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  *found = 0;
  if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  const Shape shape = shape_of(*operation, *a, *b, *c, *d);
  if (shape.m == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  for (const std::int64_t columns : {shape.n, std::int64_t(0)}) {
    if (*found == wanted) break;
    Promised promised{kMagic, kind_of(*operation, *a, *d), shape.m, shape.k, columns, {}};
    std::copy_n(preference->alignments, 4, promised.alignments);
    cublasLtMatmulHeuristicResult_t& result = results[(*found)++];
    result = {};
    std::memcpy(result.algo.data, &promised, sizeof promised);
    result.state = CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result) {
  *result = {};
  return serves(*algorithm, *operation, *a, *b, *c, *d);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* work,
                              std::size_t, cudaStream_t stream) {
  if (!handle || !algorithm || !aligned(work, 16)) return CUBLAS_STATUS_INVALID_VALUE;
  const cublasStatus_t status = serves(*algorithm, *operation, *a_layout, *b_layout, *c_layout, *d_layout);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const Shape shape = shape_of(*operation, *a_layout, *b_layout, *c_layout, *d_layout);
  Promised promised;
  std::memcpy(&promised, algorithm->data, sizeof promised);
  const void* const operands[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (!aligned(operands[i], promised.alignments[i])) return CUBLAS_STATUS_INVALID_VALUE;
  const bool biased = operation->epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (biased != (operation->bias != nullptr)) return CUBLAS_STATUS_INVALID_VALUE;
  const Call call{shape,
                  *operation,
                  a,
                  b,
                  c,
                  *a_layout,
                  *b_layout,
                  *c_layout,
                  *d_layout,
                  d,
                  *static_cast<const float*>(alpha),
                  *static_cast<const float*>(beta)};
  emulation::enqueue(stream, [call] {
    emulation::share(std::uint64_t((call.shape.m + kColumns - 1) / kColumns),
                     [&](std::uint64_t block) { multiply_rows(call, std::int64_t(block) * kColumns); });
  });
  return CUBLAS_STATUS_SUCCESS;
}
