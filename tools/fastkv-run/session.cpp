// What fastkv-run does with its command line.
#include "fastkv-run/session.hpp"

#include <unistd.h>

#include <algorithm>
#include <random>

#include "common/format.hpp"
#include "common/output.hpp"
#include "common/signals.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

Session::Session(const CommandLine& command, Arguments& arguments)
    : command_(command), arguments_(arguments), on_terminal_(isatty(STDOUT_FILENO)) {
  arguments_.check(command_);
  MethodList& list = arguments_.compare;
  method_ = arguments_.method.resolve(command_, list.methods);
  without_headkv_ = list.drop_headkv(method_.head_budgets.has_value());
  methods_ = comparing() ? list.methods : std::vector{method_.method.value_or(MethodName::fastkv)};
  if (!arguments_.save_logits.empty() && methods_.front() != MethodName::full) {
    throw UsageError("--save-logits needs --method full");
  }
}

RunOptions Session::options_for(MethodName method) const {
  RunOptions options = arguments_.run;
  options.sampling = sampling_;
  options.record_trace = !arguments_.trace.empty();
  options.all_logits = !arguments_.save_logits.empty();
  // parameters given with --compare are meant for those methods of the list that take them
  options.method = fastkv::options_for(method, method_);
  return options;
}

int Session::run() {
  arguments_.log.open();
  for (const std::string& path : {arguments_.trace, arguments_.save_logits, arguments_.perf_json}) check_writable(path);
  engine_.emplace(arguments_.engine);
  const PromptArguments& prompt = arguments_.prompt;
  if (prompt.tokens || prompt.any_text()) prompts_ = build_prompts(prompt, engine_->tokenizer());
  sampling_ = arguments_.sampling.resolve(!arguments_.trace.empty() || comparing(), engine_->tokenizer());
  if (sampling_.seed < 0) sampling_.seed = static_cast<std::int64_t>(std::random_device{}());
  announce();
  if (arguments_.dry_run) return 0;

  Callbacks callbacks;
  callbacks.stop = &stop_flag();
  callbacks.on_progress = [this](const Progress& progress) { arguments_.progress.update(progress); };
  arguments_.progress.start(arguments_.log, on_terminal_);
  engine_->load(callbacks);
  arguments_.progress.wipe();
  for (const Prompt& one : prompts_) {
    if (prompts_.size() > 1) {
      arguments_.log.line(Level::output, (&one == &prompts_.front() ? "question: " : "\nquestion: ") + one.question);
    }
    comparing() ? compare(one) : answer(one);
  }
  write_statistics();
  return 0;
}

/// Everything that can be said, and refused, before loading.
void Session::announce() {
  Log& log = arguments_.log;
  const Level level = arguments_.dry_run ? Level::output : Level::info;
  for (const std::string& line : describe_engine(engine_->info())) log.line(level, line);
  if (without_headkv_) log.line(level, "note: headkv is left out: it needs --head-budgets FILE");

  std::vector<std::int64_t> lengths;  // longest first: the one whose plan is printed
  for (const Prompt& prompt : prompts_) lengths.push_back(static_cast<std::int64_t>(prompt.ids.size()));
  if (lengths.empty()) {  // a dry run without a prompt: one that fills the context
    const std::int64_t context = arguments_.run.context > 0 ? arguments_.run.context : engine_->info().n_ctx_train;
    lengths.push_back(std::max<std::int64_t>(1, context - std::max(arguments_.run.n_predict, 0)));
  }
  std::sort(lengths.begin(), lengths.end(), std::greater<>());
  for (MethodName method : methods_) {
    const RunOptions options = options_for(method);
    for (const std::int64_t& length : lengths) {
      const RunPlan plan = engine_->plan(length, options);
      if (&length == &lengths.front()) {
        for (const std::string& line : describe_plan(engine_->info(), plan)) log.line(level, line);
        for (const std::string& line : describe_nodes(plan)) {
          if (arguments_.dry_run) log.line(level, line);
        }
        if (log.shows(Level::trace)) {
          for (const std::string& line : describe_layers(plan)) log.line(Level::trace, line);
        }
      }
      check_memory(*engine_, plan, options);
    }
  }
  if (sampling_.temperature > 0 && !arguments_.dry_run)
    log.info(format("seed: %lld", static_cast<long long>(sampling_.seed)));
  if (arguments_.prompt.display) {
    for (const Prompt& prompt : prompts_) log.line(Level::output, engine_->tokenizer().decode(prompt.ids, true));
  }
}

void Session::answer(const Prompt& prompt) {
  char last = '\n';
  const FinishedRun run =
      run_prompt(*engine_, prompt, options_for(methods_.front()), arguments_, [&](std::string_view text) {
        write_stdout(text);
        last = text.back();
      });
  // the text alone goes to a file; a terminal, and the next answer, begin on a new line
  if (last != '\n' && (on_terminal_ || prompts_.size() > 1)) write_stdout("\n");
  report(run);
  if (arguments_.perf) {
    for (const std::string& line : summary(engine_->info(), run.result.plan, run.result.stats, run.timings)) {
      arguments_.log.info(line);
    }
  }
}

void Session::compare(const Prompt& prompt) {
  std::vector<ComparedRun> runs;
  for (MethodName method : methods_) {
    arguments_.log.info(std::string("running ") + name(method));
    ComparedRun compared{method, {}, ""};
    compared.run = run_prompt(*engine_, prompt, options_for(method), arguments_,
                              [&](std::string_view text) { compared.text += text; });
    report(compared.run);
    runs.push_back(std::move(compared));
  }
  std::string text = compare_table(engine_->info(), runs);
  for (const ComparedRun& compared : runs) {
    text += std::string("\n--- ") + name(compared.method) + "\n" + compared.text;
    if (text.back() != '\n') text += '\n';
  }
  write_stdout(text);
}

void Session::report(const FinishedRun& run) {
  if (run.result.finish == Finish::context_full) {
    arguments_.log.warning(
        format("stopped: the context of %lld tokens is full", static_cast<long long>(run.result.plan.context)));
  }
  if (!arguments_.trace.empty()) write_trace(arguments_.trace, run.result);
  if (!arguments_.save_logits.empty()) {
    write_npy(arguments_.save_logits, run.result.all_logits, run.result.stats.n_prompt, engine_->info().n_vocab);
  }
  statistics_.push_back(stats_json(engine_->info(), run.result, run.timings.tokenize_ms, run.timings.ttft_ms));
}

/// One object for one run, an array for several.
void Session::write_statistics() const {
  if (arguments_.perf_json.empty()) return;
  std::string text;
  for (const std::string& one : statistics_) text += (text.empty() ? "" : ",\n") + one;
  write_file(arguments_.perf_json, (statistics_.size() == 1 ? text : "[\n" + text + "\n]") + "\n");
}

}  // namespace fastkv::tools
