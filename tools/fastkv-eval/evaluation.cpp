// The course of an evaluation.
#include "fastkv-eval/evaluation.hpp"

#include <algorithm>

#include "common/format.hpp"
#include "common/output.hpp"
#include "common/signals.hpp"
#include "common/summary.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

void EvalFlags::declare_model(CommandLine& command, const char* context_help) {
  command.group("Model and machine");
  declare_model_options(command, engine);
  declare_thread_options(command, engine);
  declare_compute_option(command, engine);
  declare_placement_options(command, engine);
  context_help ? declare_memory_options(command, run, context_help) : declare_memory_options(command, run);
}

void EvalFlags::declare_methods(CommandLine& command, const char* help) {
  command.group("Methods");
  command.add("--method", "LIST", help, [this](const std::string& text) { methods = parse_methods(text); });
  method.declare_parameters(command);
}

void EvalFlags::declare_limit(CommandLine& command, const std::string& what) {
  command.option("--limit", "N", limit, "only the first N " + what + " (default: all)",
                 Limits<std::int64_t>{1, std::int64_t{1} << 40, "must be 1 or more"});
}

void EvalFlags::declare_seed(CommandLine& command, const std::string& what) {
  command.option("-s,--seed", "N", seed, "of " + what + " (default 1)",
                 Limits<std::int64_t>{0, std::int64_t{1} << 62, "must be 0 or more"});
}

void EvalFlags::declare_output(CommandLine& command) {
  command.group("Output");
  command.option("-o,--output", "FILE", output,
                 "write settings, examples and scores as JSON; what is finished is kept there when the run is stopped");
  command.flag("--resume", resume, "go on with FILE: what it holds is not done again");
  command.flag("--overwrite", overwrite, "replace FILE");
  progress.declare(command);
  log.declare(command);
}

void EvalFlags::check() const {
  if (engine.model.empty()) throw UsageError("no model: -m FILE");
  if (resume && overwrite) throw UsageError("--resume and --overwrite exclude each other");
  for (const auto& [given, name] : {std::pair(resume, "--resume"), std::pair(overwrite, "--overwrite")}) {
    if (given && output.empty()) throw UsageError(std::string(name) + " has no effect without -o FILE");
  }
}

Evaluation::Evaluation(const CommandLine& command, EvalFlags& flags, std::string tool)
    : flags_(flags),
      method_(flags.method.resolve(command, flags.methods.methods, "--method")),
      engine_((flags.log.open(), flags.engine)),
      tool_(std::move(tool)) {
  if (flags_.methods.drop_headkv(method_.head_budgets.has_value()))
    flags_.log.info("note: headkv is left out: it needs --head-budgets FILE");
  if (!method_.min_prompt) method_.min_prompt = 0;
  flags_.run.sampling.temperature = 0;
}

bool Evaluation::has(MethodName method) const {
  return std::find(methods().begin(), methods().end(), method) != methods().end();
}

RunOptions Evaluation::options_for(MethodName method) const {
  RunOptions options = flags_.run;
  options.method = fastkv::options_for(method, method_);
  return options;
}

void Evaluation::check_plan(std::size_t n_prompt, const RunOptions& options, const std::string& where) const {
  try {
    engine_.plan(static_cast<std::int64_t>(n_prompt), options);
  } catch (const Error& error) {
    throw Error(error.code(), where + ": " + error.what());
  }
}

Callbacks Evaluation::callbacks() {
  Callbacks callbacks;
  callbacks.stop = &stop_flag();
  callbacks.on_progress = [this](const Progress& progress) { flags_.progress.update(progress); };
  return callbacks;
}

void Evaluation::begin(const char* what, const std::vector<std::string>& keys) {
  const EngineInfo& info = engine_.info();
  OrderedJson settings = {{"model", info.model_name},
                          {"model_bytes", info.file_bytes},
                          {"compute", info.compute},
                          {"decode_compute", info.decode_compute}};
  const int context = flags_.run.context > 0 ? flags_.run.context : info.n_ctx_train;
  for (MethodName method : methods()) {  // resolved for a prompt that clamps none of them
    const RunPlan plan = engine_.plan(std::max(1, context / 2), options_for(method));
    OrderedJson options = OrderedJson::parse(options_json(plan));
    for (const char* part : {"method", "context"}) options.erase(part);
    settings["methods"][name(method)] = std::move(options);
  }
  settings.update(settings_);
  const Results::Existing existing = flags_.resume      ? Results::Existing::resume
                                     : flags_.overwrite ? Results::Existing::overwrite
                                                        : Results::Existing::refuse;
  results_.emplace(flags_.output, existing, tool_, std::move(settings));
  for (const std::string& line : describe_engine(info)) flags_.log.info(line);
  what_ = what;
  missing_ = std::count_if(keys.begin(), keys.end(), [&](const std::string& key) { return !results_->find(key); });
  if (results_->resumed()) {
    flags_.log.info(format("resumed: %zu of %zu %s are in %s", keys.size() - static_cast<std::size_t>(missing_),
                           keys.size(), what, flags_.output.c_str()));
  }
  flags_.progress.start(flags_.log, false);
  if (missing_ > 0) engine_.load(callbacks());
  flags_.progress.items(what_, 0, missing_);
}

const OrderedJson& Evaluation::example(const std::string& key, const std::function<OrderedJson()>& work) {
  if (const OrderedJson* finished = results_->find(key)) return *finished;
  const OrderedJson* added = nullptr;
  try {
    added = &results_->add(key, work());
  } catch (...) {
    flags_.progress.wipe();
    results_->save();
    throw;
  }
  flags_.progress.items(what_, ++done_, missing_);
  return *added;
}

RunResult Evaluation::run(std::span<const std::int32_t> prompt, const RunOptions& options,
                          const std::function<bool(std::string_view)>& on_text) {
  Callbacks calls = callbacks();
  if (on_text) calls.on_token = [&](std::int32_t, std::string_view text) { return on_text(text); };
  RunResult result = engine_.run(prompt, options, calls);
  if (done_ == 0) {
    const OrderedJson statistics = OrderedJson::parse(stats_json(engine_.info(), result, 0, 0));
    for (const char* part : {"model", "machine"}) results_->set(part, statistics[part]);
  }
  return result;
}

void Evaluation::finish(OrderedJson scores, const std::string& text) {
  flags_.progress.wipe();
  results_->finish(std::move(scores));
  write_stdout(text);
}

}  // namespace fastkv::tools
