// The owner of cuBLASLt: row-major products as column-major ones of the transposes, algorithms chosen once a shape.
#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <map>
#include <tuple>

#include "backend/cuda/device.hpp"
#include "backend/cuda/gemm.hpp"
#include "core/check.hpp"

namespace fastkv::cuda {
namespace {

constexpr std::size_t kWorkBytes = 32 << 20;  // what cuBLASLt recommends for Hopper
constexpr std::int64_t kMostPlanRows = 4096;

void check_blas(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, ErrorCode::internal, "cuBLASLt: ", what, ": ",
        cublasLtGetStatusString(status));
}

/// A descriptor of the library, destroyed with its owner.
template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&&) = delete;
  ~Owned() {
    if (handle_) Destroy(handle_);
  }
  operator Handle() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};
using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

Layout make_layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns) {
  Layout layout;
  check_blas(cublasLtMatrixLayoutCreate(layout.out(), type, std::uint64_t(rows), std::uint64_t(columns), rows),
             "a matrix layout");
  return layout;
}

/// The power of two, up to 16, that divides the address. Not up to the 256 that allocations have: a tile of rows would
/// then be computed by another algorithm than all rows, and 16 is what tensor cores' loads need.
std::uint32_t alignment(const void* at) {
  return std::uint32_t(1) << std::min(4, std::countr_zero(reinterpret_cast<std::uintptr_t>(at)));
}

/// y [m, out] (+)= x [m, in] · w [out, in]ᵀ + bias.
struct Product {
  const void *x, *w, *bias;
  void* y;
  std::int64_t m, out, in;
  cudaDataType_t y_type;
  bool add;
};

/// How the library computes a shape.
struct Plan {
  Operation operation;
  cublasLtMatmulAlgo_t algorithm{};
};

}  // namespace

struct Gemm::Impl {
  /// plan rows, out, in, y's type, alignments of w, x, y and bias (0: none).
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, int, std::uint32_t, std::uint32_t, std::uint32_t,
                         std::uint32_t>;

  explicit Impl(cudaStream_t on) : stream(on), work(on, kWorkBytes, "work space of matrix products") {
    check_blas(cublasLtCreate(library.out()), "opening the library");
  }

  void run(const Product& p) {
    if (p.m == 0) return;
    Plan& plan = plan_of(p);
    if (p.bias) {
      check_blas(
          cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias),
          "a bias");
    }
    const Layout w = make_layout(CUDA_R_16BF, p.in, p.out), x = make_layout(CUDA_R_16BF, p.in, p.m),
                 y = make_layout(p.y_type, p.out, p.m);
    const float one = 1, beta = p.add ? 1 : 0;
    const cublasStatus_t status = cublasLtMatmul(library, plan.operation, &one, p.w, w, p.x, x, &beta, p.y, y, p.y, y,
                                                 &plan.algorithm, work.data(), work.bytes(), stream);
    check(status == CUBLAS_STATUS_SUCCESS, ErrorCode::internal, "cuBLASLt: [", p.m, ", ", p.in, "] · [", p.out, ", ",
          p.in, "]ᵀ: ", cublasLtGetStatusString(status));
  }

  Plan& plan_of(const Product& p) {
    const Key key{plan_rows,      p.out,          p.in,           p.y_type,
                  alignment(p.w), alignment(p.x), alignment(p.y), p.bias ? alignment(p.bias) : 0};
    const auto found = plans.find(key);
    if (found != plans.end()) return found->second;
    return plans.emplace(key, make_plan(p)).first->second;
  }

  /// The library's first choice for plan_rows rows among the algorithms that sum each product in one sequence.
  Plan make_plan(const Product& p) const {
    Plan plan;
    check_blas(cublasLtMatmulDescCreate(plan.operation.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation");
    const std::int32_t transposed = CUBLAS_OP_T;
    check_blas(
        cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
        "a transpose");
    if (p.bias) {
      const std::uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      check_blas(
          cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
          "a bias");
      check_blas(
          cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias),
          "a bias");
    }
    Preference preference;
    check_blas(cublasLtMatmulPreferenceCreate(preference.out()), "a preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
      check_blas(cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof value), "a preference");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t(kWorkBytes));
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t(CUBLASLT_REDUCTION_SCHEME_NONE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.w));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.x));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.y));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.y));
    const Layout w = make_layout(CUDA_R_16BF, p.in, p.out), x = make_layout(CUDA_R_16BF, p.in, plan_rows),
                 y = make_layout(p.y_type, p.out, plan_rows);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(library, plan.operation, w, x, y, y, preference, 1, &result, &found);
    check(status == CUBLAS_STATUS_SUCCESS && found == 1 && result.state == CUBLAS_STATUS_SUCCESS,
          ErrorCode::unsupported, "cuBLASLt: no algorithm for [", plan_rows, ", ", p.in, "] · [", p.out, ", ", p.in,
          "]ᵀ: ", cublasLtGetStatusString(status));
    plan.algorithm = result.algo;
    return plan;
  }

  cudaStream_t stream;
  DeviceBuffer work;
  Library library;
  std::map<Key, Plan> plans;
  std::int64_t plan_rows = kMostPlanRows;
};

Gemm::Gemm(cudaStream_t stream) : impl_(std::make_unique<Impl>(stream)) {}
Gemm::~Gemm() = default;

void Gemm::expect_rows(std::int64_t rows) {
  std::int64_t suited = kMostPlanRows;
  while (suited > std::max<std::int64_t>(rows, 8)) suited /= 8;
  impl_->plan_rows = suited;
}

void Gemm::multiply(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const __nv_bfloat16* bias,
                    std::int64_t out, std::int64_t in, __nv_bfloat16* y) {
  impl_->run({x, w, bias, y, m, out, in, CUDA_R_16BF, false});
}
void Gemm::multiply(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const float* bias, std::int64_t out,
                    std::int64_t in, float* y) {
  impl_->run({x, w, bias, y, m, out, in, CUDA_R_32F, false});
}
void Gemm::add_product(const __nv_bfloat16* x, std::int64_t m, const __nv_bfloat16* w, const float* bias,
                       std::int64_t out, std::int64_t in, float* y) {
  impl_->run({x, w, bias, y, m, out, in, CUDA_R_32F, true});
}

std::size_t Gemm::work_bytes() { return kWorkBytes; }
std::string Gemm::version() {
  const std::size_t v = cublasLtGetVersion();
  return concat("cublasLt ", v / 10000, ".", v / 100 % 100, ".", v % 100);
}

}  // namespace fastkv::cuda
