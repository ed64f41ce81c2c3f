// What every evaluation is made of: options, an engine, methods, a results file, progress.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/chat.hpp"
#include "common/log.hpp"
#include "common/options.hpp"
#include "common/progress.hpp"
#include "fastkv-eval/results.hpp"
#include "fastkv/engine.hpp"

namespace fastkv::tools {

/// The options that evaluations share, in the order of --help.
struct EvalFlags {
  EngineOptions engine;
  RunOptions run;
  MethodFlags method;
  MethodList methods{{MethodName::full, MethodName::fastkv}};
  ChatFlags chat;
  std::string output;
  std::int64_t limit = 0, seed = 1;
  bool resume = false, overwrite = false;
  Log log;
  ProgressReport progress;

  /// -m and the machine, -ctk, -ctv, and -c with a help of its own where it is not the context.
  void declare_model(CommandLine& command, const char* context_help = nullptr);
  /// --method as a list, and the parameters.
  void declare_methods(
      CommandLine& command,
      const char* help = "full,fastkv (default), other methods, all; each reads those flags that it knows");
  /// --limit N `what`.
  void declare_limit(CommandLine& command, const std::string& what);
  /// --seed of what is drawn at random.
  void declare_seed(CommandLine& command, const std::string& what);
  /// -o, --resume, --overwrite, --progress, -lv.
  void declare_output(CommandLine& command);
  /// After parsing. Throws UsageError.
  void check() const;
};

/// One evaluation: opened, told what its results depend on, then a series of examples, each with a key, then scores.
class Evaluation {
 public:
  /// Opens the model's header, not its weights, and resolves the methods' flags. `tool`: "fastkv-eval niah". `flags`
  /// must outlive this. Throws UsageError, Error.
  Evaluation(const CommandLine& command, EvalFlags& flags, std::string tool);

  Engine& engine() { return engine_; }
  const Tokenizer& tokenizer() const { return engine_.tokenizer(); }
  const std::vector<MethodName>& methods() const { return flags_.methods.methods; }
  bool has(MethodName method) const;
  /// Options of a greedy run under `method`, with the flags that it reads. Prompts are compared under the methods that
  /// were named, however short they are.
  RunOptions options_for(MethodName method) const;
  /// Refuses a prompt whose run could not be: throws what Engine::plan throws, after `where` ("rows.jsonl: line 3").
  void check_plan(std::size_t n_prompt, const RunOptions& options, const std::string& where) const;

  /// What results depend on beside model, arithmetic and methods, before begin().
  void setting(const std::string& name, OrderedJson value) { settings_[name] = std::move(value); }

  /// Opens the results file, says what will be done, and loads the model if an example of `keys` is missing. `what`
  /// names examples ("answers").
  void begin(const char* what, const std::vector<std::string>& keys);
  /// The finished example of that key, or the one that `work` makes now: a flat object. What was finished before is
  /// in the file when an exception leaves (Ctrl-C, a full disk).
  const OrderedJson& example(const std::string& key, const std::function<OrderedJson()>& work);
  /// A run that stops on signals and shows its progress. `on_text` gets generated text and says whether to go on.
  RunResult run(std::span<const std::int32_t> prompt, const RunOptions& options,
                const std::function<bool(std::string_view)>& on_text = {});
  /// Writes what is finished to the file, before something else may throw.
  void save() { results_->save(); }
  /// Writes the scores, a flat object each, and prints `text` on stdout.
  void finish(OrderedJson scores, const std::string& text);

  /// Progress and signals, for an engine beside engine().
  Callbacks callbacks();

 private:
  EvalFlags& flags_;
  MethodOptions method_;
  Engine engine_;
  std::string tool_;
  OrderedJson settings_;
  std::optional<Results> results_;
  const char* what_ = "";
  std::int64_t done_ = 0, missing_ = 0;  // examples of this run
};

}  // namespace fastkv::tools
