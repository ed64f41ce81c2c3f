// fastkv-run: answers a prompt, or several questions about one document, from a GGUF file.
#include "common/signals.hpp"
#include "fastkv-run/session.hpp"

int main(int argc, char** argv) {
  using namespace fastkv::tools;
  install_signal_handlers();
  return run_tool("fastkv-run", [&] {
    CommandLine command("fastkv-run", "-m FILE.gguf [-f DOCUMENT] [-p PROMPT] [-q QUESTION]... [options]",
                        "Answers a prompt with FastKV, which computes and keeps the tokens that matter, or with all of "
                        "them (--method full).");
    Arguments arguments;
    arguments.declare(command);
    if (const std::optional<int> status = command.parse(argc, argv)) return *status;
    return Session(command, arguments).run();
  });
}
