// The evaluations, one function each.
#pragma once

namespace fastkv::tools {

// `argv[0]` is the subcommand's name. They return the exit status; everything that goes wrong is thrown.
int run_nll(int argc, const char* const* argv);

}  // namespace fastkv::tools
