// fastkv-eval nll: how likely given continuations are under each method.
#pragma once

namespace fastkv::tools {

/// `argv[0]` is "nll". Returns the exit status; everything that goes wrong is thrown.
int run_nll(int argc, const char* const* argv);

}  // namespace fastkv::tools
