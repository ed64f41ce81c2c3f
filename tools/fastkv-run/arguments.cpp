// fastkv-run's command line: declaration and conflicts.
#include "fastkv-run/arguments.hpp"

namespace fastkv::tools {

void Arguments::declare(CommandLine& command) {
  command.group("Model and machine");
  declare_model_options(command, engine);
  declare_thread_options(command, engine);
  declare_compute_option(command, engine);
  declare_placement_options(command, engine);
  declare_memory_options(command, run);
  command.flag("--dry-run", dry_run, "print the memory plan and the placement, load nothing");

  command.group("Prompt");
  command.option("-p,--prompt", "TEXT", prompt.prompt, "prompt; after the document if there is one");
  command.option("-f,--file", "FILE", prompt.file, "document, byte for byte; - is stdin");
  command.add_repeated("-q,--question", "TEXT", "question at the end; repeated: one answer each",
                       [this](const std::string& text) { prompt.questions.push_back(text); });
  command.option("-sys,--system-prompt", "TEXT", prompt.system, "system turn of the chat template");
  command.option("--tokens", "FILE", prompt.tokens, "prompt as a JSON array of token ids, instead of text");
  prompt.chat.declare(command);
  command.flag("-e,--escape,!--no-escape", prompt.escape,
               "turn \\n, \\t, \\\\, \\\", \\', \\r, \\xHH in -p, -q and -sys into characters (default: on)");
  command.flag("--display-prompt,~!--no-display-prompt", prompt.display, "print the prompt on stderr");

  command.group("Method");
  method.declare(command);
  command.add("--compare", "LIST",
              "the same prompt under several methods (full,fastkv,... or all): one table, then the answers",
              [this](const std::string& text) { compare = parse_methods(text); });

  command.group("Generation");
  command.option("-n,--n-predict,~--predict", "N", run.n_predict,
                 "tokens to generate; -1: until the end of the turn or of the context (default)",
                 Limits<int>{-1, 1 << 30, "must be -1 or more"});
  sampling.declare(command);
  command.add_repeated("-r,--reverse-prompt,~--stop", "TEXT", "stop before this text; may be repeated",
                       [this](const std::string& text) {
                         if (text.empty()) throw UsageError("must not be empty");
                         stops.push_back(text);
                       });

  command.group("Output");
  command.option("--trace", "FILE", trace, "write what the run decided as JSON");
  command.option("--save-logits", "FILE", save_logits,
                 "write the logits of every prompt token as .npy (--method full)");
  command.option("--perf-json", "FILE", perf_json, "write the statistics as JSON");
  command.flag("--perf,!--no-perf", perf, "print the timings (default: on)");
  progress.declare(command);
  log.declare(command);
}

void Arguments::check(const CommandLine& command) const {
  const auto exclude = [&](const char* first, std::initializer_list<const char*> others) {
    for (const char* other : others) {
      if (command.given(first) && command.given(other)) {
        throw UsageError(std::string(first) + " and " + other + " exclude each other");
      }
    }
  };
  if (engine.model.empty()) throw UsageError("no model: -m FILE");
  exclude("--tokens", {"--prompt", "--file", "--question", "--system-prompt", "--chat-template", "--conversation"});
  exclude("--compare", {"--method", "--trace", "--save-logits"});
  if (!prompt.tokens && !prompt.any_text() && !dry_run) {
    throw UsageError("no prompt: -p TEXT, -f FILE, -q TEXT or --tokens FILE");
  }
  prompt.chat.check();
  if (prompt.chat.refused() && prompt.system) {
    throw UsageError("--system-prompt and --no-conversation exclude each other");
  }
  if (prompt.questions.size() > 1 && (!trace.empty() || !save_logits.empty())) {
    throw UsageError(std::string(trace.empty() ? "--save-logits" : "--trace") + " takes one --question");
  }
}

}  // namespace fastkv::tools
