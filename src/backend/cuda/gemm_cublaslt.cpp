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
constexpr std::int64_t kMostRows = 65536;  // of a product: the largest tile that the user may ask for
constexpr int kCandidates = 16;            // algorithms of a shape that are considered

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

/// What the addresses of any rows of a matrix are multiples of: the power of two, up to the 16 that tensor cores' loads
/// need, that divides a row. Not what one address is a multiple of: some rows would then be computed by another
/// algorithm than all.
std::uint32_t alignment(std::int64_t row_bytes) {
  return std::uint32_t(1) << std::min(4, std::countr_zero(std::uint64_t(row_bytes)));
}

/// y [m, out] (+)= x [m, in] · w [out, in]ᵀ + bias.
struct Product {
  const void *x, *w, *bias;
  void* y;
  std::int64_t m, out, in;
  cudaDataType_t y_type;
  bool add;
};

/// x, w and y of a product of m rows.
struct Layouts {
  Layout w, x, y;
  Layouts(const Product& p, std::int64_t m)
      : w(make_layout(CUDA_R_16BF, p.in, p.out)),
        x(make_layout(CUDA_R_16BF, p.in, m)),
        y(make_layout(p.y_type, p.out, m)) {}
};

/// How the library computes a shape.
struct Plan {
  Operation operation;
  cublasLtMatmulAlgo_t algorithm{};
};

}  // namespace

struct Gemm::Impl {
  /// rows planned for, out, in, y's type, with a bias.
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, int, bool>;

  Impl(cudaStream_t on, Algorithms which)
      : stream(on), algorithms(which), work(on, kWorkBytes, "work space of matrix products") {
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
    const Layouts of(p, p.m);
    const float one = 1, beta = p.add ? 1 : 0;
    const cublasStatus_t status = cublasLtMatmul(library, plan.operation, &one, p.w, of.w, p.x, of.x, &beta, p.y, of.y,
                                                 p.y, of.y, &plan.algorithm, work.data(), work.bytes(), stream);
    check(status == CUBLAS_STATUS_SUCCESS, ErrorCode::internal, "cuBLASLt: [", p.m, ", ", p.in, "] · [", p.out, ", ",
          p.in, "]ᵀ: ", cublasLtGetStatusString(status));
  }

  Plan& plan_of(const Product& p) {
    const Key key{rows_of(p), p.out, p.in, p.y_type, p.bias != nullptr};
    const auto found = plans.find(key);
    if (found != plans.end()) return found->second;
    return plans.emplace(key, make_plan(p)).first->second;
  }

  bool free_choice() const { return algorithms == Algorithms::first_choice; }
  std::int64_t rows_of(const Product& p) const { return free_choice() ? p.m : plan_rows; }

  /// The library's first choice for plan_rows rows among the algorithms that sum each product in one sequence and can
  /// do so for any number of rows.
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
    if (!free_choice())
      prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t(CUBLASLT_REDUCTION_SCHEME_NONE));
    const std::uint32_t in_alignment = alignment(p.in * std::int64_t(sizeof(__nv_bfloat16)));
    const std::uint32_t out_alignment =
        alignment(p.out * std::int64_t(p.y_type == CUDA_R_32F ? sizeof(float) : sizeof(__nv_bfloat16)));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, in_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, in_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_alignment);
    const Layouts of(p, rows_of(p)), one_row(p, 1), most_rows(p, kMostRows);
    cublasLtMatmulHeuristicResult_t results[kCandidates] = {};
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library, plan.operation, of.w, of.x, of.y, of.y,
                                                                 preference, kCandidates, results, &found);
    const auto serves = [&](const cublasLtMatmulAlgo_t& algorithm, const Layouts& rows) {
      cublasLtMatmulHeuristicResult_t result{};
      return cublasLtMatmulAlgoCheck(library, plan.operation, rows.w, rows.x, rows.y, rows.y, &algorithm, &result) ==
                 CUBLAS_STATUS_SUCCESS &&
             result.workspaceSize <= kWorkBytes;
    };
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; ++i) {
      plan.algorithm = results[i].algo;
      if (results[i].state == CUBLAS_STATUS_SUCCESS &&
          (free_choice() || (serves(plan.algorithm, one_row) && serves(plan.algorithm, most_rows))))
        return plan;
    }
    fail(ErrorCode::unsupported, "cuBLASLt: no algorithm for [", rows_of(p), ", ", p.in, "] · [", p.out, ", ", p.in,
         "]ᵀ: ", cublasLtGetStatusString(status));
  }

  cudaStream_t stream;
  Algorithms algorithms;
  DeviceBuffer work;
  Library library;
  std::map<Key, Plan> plans;
  std::int64_t plan_rows = kMostPlanRows;
};

Gemm::Gemm(cudaStream_t stream, Algorithms algorithms) : impl_(std::make_unique<Impl>(stream, algorithms)) {}
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
