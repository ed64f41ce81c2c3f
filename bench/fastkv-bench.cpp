// fastkv-bench: speed of prompts and generation, of kernels, and ratios of results.
#include <cstring>

#include "bench/compare.hpp"
#include "bench/modes.hpp"
#include "bench/roofline/roofline.hpp"
#include "common/signals.hpp"

int main(int argc, char** argv) {
  using namespace fastkv;
  using namespace fastkv::bench;
  tools::install_signal_handlers();
  return tools::run_tool("fastkv-bench", [&] {
    if (argc > 1 && std::strcmp(argv[1], "compare") == 0) return run_compare(argc - 1, argv + 1);
    if (argc > 1 && std::strcmp(argv[1], "roofline") == 0) return run_roofline(argc - 1, argv + 1);
    tools::CommandLine command(
        "fastkv-bench",
        "-m FILE.gguf [options]\n"
        "       fastkv-bench roofline [options]\n"
        "       fastkv-bench compare A.json B.json...",
        "Measures tokens per second as llama-bench does, with shares of what this machine can do.");
    Arguments arguments;
    arguments.declare(command);
    if (const std::optional<int> status = command.parse(argc, argv)) return *status;
    arguments.check(command);
    arguments.log.open();
    if (arguments.sweep) return run_sweep(arguments);
    if (arguments.suite) return run_suite(arguments);
    if (arguments.breakdown) return run_breakdown(arguments);
    if (arguments.edges) return run_edges(arguments);
    return run_tests(arguments);
  });
}
