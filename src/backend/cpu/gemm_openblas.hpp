// sgemm of OpenBLAS, loaded at run time with the core type this CPU deserves. The only user of cblas.h.
#pragma once

#include <cstdint>
#include <string>

#include "simd/isa.hpp"

namespace fastkv::cpu {

/// OpenBLAS with one thread per call: it never owns threads. Loaded once per process.
class OpenBlas {
 public:
  /// Loads the library with the kernels of `isa` (Haswell, SkylakeX, …: its own detection knows no recent CPU). The
  /// choice is made once per process: a later call with another level keeps the first. Throws Error unsupported with
  /// the package to install when the library is missing.
  static const OpenBlas& load(simd::Isa isa);

  /// c [m, n] = a [m, k] · b [k, n], row-major with leading dimensions; callable from several threads at once.
  void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
            std::int64_t ldb, float* c, std::int64_t ldc) const;

  const std::string& core() const { return core_; }  ///< "SkylakeX"

 private:
  OpenBlas(simd::Isa isa);
  void* sgemm_ = nullptr;
  std::string core_;
};

}  // namespace fastkv::cpu
