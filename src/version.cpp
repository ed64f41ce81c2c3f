// What this build is and what this machine can run, for --version and bug reports.
#include "backend/backend.hpp"
#include "core/check.hpp"
#include "fastkv/engine.hpp"

namespace fastkv {

std::string version_text() {
  return concat("fastkv " FASTKV_VERSION " (", FASTKV_COMMIT, ")\n", "compiler: " FASTKV_COMPILER, "\n", devices_text(),
                "GEMM: native; float32 through OpenBLAS, loaded when used\n");
}

std::string build_commit() { return FASTKV_COMMIT; }

}  // namespace fastkv
