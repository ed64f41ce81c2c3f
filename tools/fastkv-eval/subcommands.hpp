// The evaluations, one function each.
#pragma once

namespace fastkv::tools {

// `argv[0]` is the subcommand's name. They return the exit status; everything that goes wrong is thrown.
int run_longbench(int argc, const char* const* argv);
int run_ruler(int argc, const char* const* argv);
int run_niah(int argc, const char* const* argv);
int run_nll(int argc, const char* const* argv);
int run_ppl(int argc, const char* const* argv);
int run_kld(int argc, const char* const* argv);
int run_overlap(int argc, const char* const* argv);
int run_hidden(int argc, const char* const* argv);
int run_choose_tsp(int argc, const char* const* argv);
int run_ablation(int argc, const char* const* argv);
int run_latency(int argc, const char* const* argv);

}  // namespace fastkv::tools
