// fastkv-eval: what compression costs, on the user's own model and text.
#include <cstring>
#include <optional>

#include "common/cli.hpp"
#include "common/signals.hpp"
#include "fastkv-eval/nll.hpp"

int main(int argc, char** argv) {
  using namespace fastkv::tools;
  install_signal_handlers();
  return run_tool("fastkv-eval", [&] {
    if (argc > 1 && std::strcmp(argv[1], "nll") == 0) return run_nll(argc - 1, argv + 1);
    CommandLine command("fastkv-eval", "nll -m FILE.gguf --rows ROWS.jsonl [options]",
                        "Measures what a method changes. `fastkv-eval nll --help` lists the options of nll: how likely "
                        "given continuations are.");
    if (const std::optional<int> status = command.parse(argc, argv)) return *status;
    throw UsageError("expected a subcommand: nll");
  });
}
