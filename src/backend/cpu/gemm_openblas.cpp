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
    case simd::Isa::scalar:
      return "Prescott";
    case simd::Isa::avx2:
    case simd::Isa::avx2_vnni:
      return "Haswell";
    default:
      return "SkylakeX";
  }
}

}  // namespace

const OpenBlas& OpenBlas::load(simd::Isa isa) {
  static const OpenBlas library(isa);
  return library;
}

OpenBlas::OpenBlas(simd::Isa isa) {
  // The pthread build held to one thread per call. Not the serial build: it keeps its work buffers without locks, and
  // two threads calling it at once corrupted one another's results (Debian's 0.3.21). Not the OpenMP build: it brings a
  // second OpenMP runtime into the process.
  static constexpr const char* kFile = "/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0";
  setenv("OPENBLAS_CORETYPE", core_type(isa), 0);  // read by the library's constructor; the user's own choice stays
  setenv("OPENBLAS_NUM_THREADS", "1", 1);          // so that no worker threads are made
  void* library = dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  check(library, ErrorCode::unsupported, "OpenBLAS not found at ", kFile,
        ": install libopenblas0-pthread, or use --gemm native");
  sgemm_ = dlsym(library, "cblas_sgemm");
  check(sgemm_, ErrorCode::unsupported, kFile, ": expected the symbol cblas_sgemm; use --gemm native");
  if (void* set_threads = dlsym(library, "openblas_set_num_threads")) reinterpret_cast<void (*)(int)>(set_threads)(1);
  if (void* name = dlsym(library, "openblas_get_corename")) core_ = reinterpret_cast<char* (*)()>(name)();
}

void OpenBlas::gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                    std::int64_t ldb, float* c, std::int64_t ldc) const {
  reinterpret_cast<decltype(&cblas_sgemm)>(sgemm_)(CblasRowMajor, CblasNoTrans, CblasNoTrans, blasint(m), blasint(n),
                                                   blasint(k), 1.0f, a, blasint(lda), b, blasint(ldb), 0.0f, c,
                                                   blasint(ldc));
}

}  // namespace fastkv::cpu
