// Loading OpenBLAS: the core type is read by the library's constructor, so it must be set before dlopen.
#include "backend/cpu/gemm_openblas.hpp"

#include <cblas.h>
#include <dlfcn.h>

#include <cstdlib>

#include "core/check.hpp"

namespace fastkv::cpu {
namespace {

const char* core_type(simd::Isa isa) {
  switch (isa) {
    case simd::Isa::scalar: return "Prescott";
    case simd::Isa::avx2:
    case simd::Isa::avx2_vnni: return "Haswell";
    default: return "SkylakeX";
  }
}

}  // namespace

const OpenBlas& OpenBlas::load(simd::Isa isa) {
  static const OpenBlas library(isa);
  return library;
}

OpenBlas::OpenBlas(simd::Isa isa) {
  // The serial build: the pthread and OpenMP builds would fight our threads over the cores.
  if (!std::getenv("OPENBLAS_CORETYPE")) setenv("OPENBLAS_CORETYPE", core_type(isa), 1);
  void* library = dlopen("/usr/lib/x86_64-linux-gnu/openblas-serial/libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  check(library, ErrorCode::unsupported,
        "OpenBLAS (serial build) not found: install libopenblas0-serial, or use --gemm native");
  sgemm_ = dlsym(library, "cblas_sgemm");
  check(sgemm_, ErrorCode::unsupported, "OpenBLAS without cblas_sgemm: install libopenblas0-serial, or use --gemm native");
  if (void* name = dlsym(library, "openblas_get_corename")) core_ = reinterpret_cast<char* (*)()>(name)();
}

void OpenBlas::gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                    std::int64_t ldb, float* c, std::int64_t ldc) const {
  reinterpret_cast<decltype(&cblas_sgemm)>(sgemm_)(CblasRowMajor, CblasNoTrans, CblasNoTrans, blasint(m), blasint(n),
                                                   blasint(k), 1.0f, a, blasint(lda), b, blasint(ldb), 0.0f, c,
                                                   blasint(ldc));
}

}  // namespace fastkv::cpu
