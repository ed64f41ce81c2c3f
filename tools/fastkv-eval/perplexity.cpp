// fastkv-eval ppl and kld: the second halves of windows of a text, under every method.
//
// As in llama-perplexity a window's first half is context and the tokens of its second half are scored. Under full the
// window is one prompt, whose logits are all computed; under other methods the first half is the prompt, which is
// compressed, and the second half is fed token by token: what full would give too, but for the rounding of prefill and
// decode.
#include <cmath>
#include <optional>
#include <span>

#include "common/format.hpp"
#include "common/table.hpp"
#include "fastkv-eval/divergence.hpp"
#include "fastkv-eval/evaluation.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"
#include "fastkv-eval/text_windows.hpp"

namespace fastkv::tools {

namespace {

constexpr int kDefaultWindow = 512;

struct Flags : EvalFlags {
  TextFlags text;
  std::int64_t stride = 0;
  bool compares = false;  // kld
  std::optional<Compute> base_compute;

  void declare(CommandLine& command) {
    declare_model(command, "tokens of a window, of which the second half is scored (default 512)");
    command.group("Text");
    text.declare(command);
    command.option("--stride", "N", stride, "tokens from one window to the next (default: -c, the window's length)",
                   Limits<std::int64_t>{1, std::int64_t{1} << 40, "must be 1 or more"});
    declare_limit(command, "windows");
    if (compares) {
      command.choice<std::optional<Compute>, Compute>(
          "--base-compute", base_compute, {{"f32", Compute::f32}, {"bf16", Compute::bf16}, {"int8", Compute::int8}},
          "arithmetic on the CPU of the full run that the others are compared with (default: --compute, --device)");
    }
    declare_methods(command, compares
                                 ? "fastkv (default), other methods, all; each reads those flags that it knows"
                                 : "full,fastkv (default), other methods, all; each reads those flags that it knows");
    declare_output(command);
  }
  void check() {
    EvalFlags::check();
    text.check();
    if (run.context == 0) run.context = kDefaultWindow;
    if (run.context < 4)
      throw UsageError("--ctx-size " + std::to_string(run.context) + ": a window has 4 tokens or more");
    if (stride == 0) stride = run.context;
  }
};

/// Tokens of a window that are context: those after them are scored, each by the logits of the one before it.
std::size_t context_of(const Tokens& window) { return window.size() / 2 + 1; }

RunOptions options_of(const Evaluation& evaluation, MethodName method, const Tokens& window) {
  RunOptions options = evaluation.options_for(method);
  if (method == MethodName::full) {
    options.n_predict = 0;
    options.all_logits = true;
  } else {
    options.continuation.assign(window.begin() + std::ptrdiff_t(context_of(window)), window.end());
    options.step_logits = true;
  }
  return options;
}

std::size_t prompt_length(MethodName method, const Tokens& window) {
  return method == MethodName::full ? window.size() : context_of(window);
}

/// Logits [scored tokens, V] that the second half's tokens are scored by.
struct Scored {
  std::vector<float> logits;
  std::size_t skip = 0;  // rows before the first
  std::optional<double> coverage;
  double prefill_ms = 0;
};

template <class Run>
Scored scored(const Evaluation& evaluation, MethodName method, const Tokens& window, const Run& run) {
  const RunOptions options = options_of(evaluation, method, window);
  RunResult result = run(std::span(window).first(prompt_length(method, window)), options);
  const bool whole = method == MethodName::full;
  return {whole ? std::move(result.all_logits) : std::move(result.step_logits), whole ? context_of(window) - 1 : 0,
          result.stats.coverage, result.stats.prefill_ms};
}

std::span<const float> row(const Scored& s, std::size_t t, std::size_t vocab) {
  return std::span(s.logits).subspan((s.skip + t) * vocab, vocab);
}

double rounded(double x) { return std::round(x * 1e7) / 1e7; }  // short in the file

OrderedJson example_of(MethodName method, std::size_t number, const Tokens& window, const Scored& own,
                       const Scored* base, std::size_t vocab) {
  const std::size_t first = context_of(window), count = window.size() - first;
  std::vector<double> nll, kl;
  std::size_t same = 0;
  for (std::size_t t = 0; t < count; ++t) {
    nll.push_back(
        rounded(log_sum_exp(row(own, t, vocab)) - double(row(own, t, vocab)[std::size_t(window[first + t])])));
    if (!base) continue;
    const Divergence d = divergence(row(*base, t, vocab), row(own, t, vocab));
    kl.push_back(rounded(d.kl));
    same += d.same;
  }
  OrderedJson example = {{"window", number}, {"method", name(method)}, {"tokens", count}, {"nll", nll}};
  if (base) example["kl"] = kl, example["same_best"] = same;
  if (own.coverage) example["coverage"] = *own.coverage;
  example["prefill_ms"] = own.prefill_ms;
  return example;
}

std::string key_of(std::size_t number, MethodName method) { return std::to_string(number) + "/" + name(method); }

/// All token values of a field of one method's examples, joined.
std::vector<double> joined(const std::vector<OrderedJson>& examples, MethodName method, const char* field) {
  std::vector<double> all;
  for (const OrderedJson& example : examples) {
    if (example["method"] != name(method) || !example.contains(field)) continue;
    const auto values = example[field].get<std::vector<double>>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

void report(Evaluation& evaluation, const std::vector<OrderedJson>& examples, bool compares) {
  OrderedJson scores = OrderedJson::array();
  Table table(compares ? std::vector<std::string>{"method", "tokens", "mean KL", "median", "99 %", "same best", "PPL"}
                       : std::vector<std::string>{"method", "tokens", "PPL"});
  std::string closing;
  for (MethodName method : evaluation.methods()) {
    const std::vector<double> nll = joined(examples, method, "nll");
    const Mean mean = mean_of(nll);
    const double ppl = std::exp(mean.mean), error = ppl * mean.error.value_or(0);
    const std::string ppl_text = format("%.4f +/- %.5f", ppl, error);
    OrderedJson score = {{"method", name(method)},
                         {"n", nll.size()},
                         {"nll", json_of(mean)},
                         {"ppl", {{"mean", ppl}, {"standard_error", error}}}};
    if (compares) {
      const std::vector<double> kl = joined(examples, method, "kl");
      std::vector<double> same;
      for (const OrderedJson& example : examples) {
        if (example["method"] != name(method)) continue;
        const std::size_t tokens = example["tokens"], equal = example["same_best"];
        same.insert(same.end(), equal, 100.0);
        same.insert(same.end(), tokens - equal, 0.0);
      }
      score["kl"] = json_of(mean_of(kl));
      score["kl_median"] = quantile(kl, 0.5);
      score["kl_99"] = quantile(kl, 0.99);
      score["kl_max"] = quantile(kl, 1);
      score["same_best"] = json_of(mean_of(same));
      table.row({name(method), std::to_string(kl.size()), text_of(mean_of(kl), 5), format("%.5f", quantile(kl, 0.5)),
                 format("%.4f", quantile(kl, 0.99)), text_of(mean_of(same), 2) + " %", ppl_text});
    } else {
      table.row({name(method), std::to_string(nll.size()), ppl_text});
      closing += std::string(name(method)) + ": Final estimate: PPL = " + ppl_text + "\n";
    }
    scores.push_back(std::move(score));
  }
  // one method: llama-perplexity's closing line, which scripts look for
  evaluation.finish(std::move(scores), compares || evaluation.methods().size() > 1
                                           ? table.text()
                                           : closing.substr(closing.find(": ") + 2));
}

int run_windows(int argc, const char* const* argv, bool compares) {
  const std::string tool = compares ? "fastkv-eval kld" : "fastkv-eval ppl";
  CommandLine command(tool, "-m FILE.gguf -f TEXT [options]",
                      compares ? "KL divergence of the next token's distribution from that of full, over windows of a "
                                 "text, under each method."
                               : "Perplexity over windows of a text under each method.");
  Flags flags;
  flags.compares = compares;
  if (compares) flags.methods = {{MethodName::fastkv}};
  flags.declare(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  Evaluation evaluation(command, flags, tool);
  const std::vector<Tokens> windows =
      read_windows(flags.text.file, flags.run.context, flags.stride, flags.limit, evaluation.tokenizer());
  std::vector<std::string> keys;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    for (MethodName method : evaluation.methods()) keys.push_back(key_of(w, method));
  }
  for (MethodName method : evaluation.methods())  // windows are of one length
    evaluation.check_plan(prompt_length(method, windows[0]), options_of(evaluation, method, windows[0]),
                          flags.text.file);
  evaluation.setting("text", flags.text.file);
  evaluation.setting("window", flags.run.context);
  evaluation.setting("stride", flags.stride);
  std::optional<Engine> other;  // the base's, in another arithmetic
  if (flags.base_compute) {
    EngineOptions options = flags.engine;
    options.compute = *flags.base_compute;
    options.device = "cpu";
    other.emplace(options);
  }
  if (compares) evaluation.setting("base_compute", (other ? *other : evaluation.engine()).info().compute);
  evaluation.begin("windows", keys);

  const std::size_t vocab = static_cast<std::size_t>(evaluation.engine().info().n_vocab);
  std::vector<OrderedJson> examples;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    std::optional<Scored> base;  // computed once a window, when a first example needs it
    for (MethodName method : evaluation.methods()) {
      examples.push_back(evaluation.example(key_of(w, method), [&] {
        const auto run = [&](auto prompt, const RunOptions& options) { return evaluation.run(prompt, options); };
        const auto run_base = [&](auto prompt, const RunOptions& options) {
          return other ? other->run(prompt, options, evaluation.callbacks()) : evaluation.run(prompt, options);
        };
        if (compares && !base) base = scored(evaluation, MethodName::full, windows[w], run_base);
        return example_of(method, w, windows[w], scored(evaluation, method, windows[w], run), base ? &*base : nullptr,
                          vocab);
      }));
    }
  }
  report(evaluation, examples, compares);
  return 0;
}

}  // namespace

int run_ppl(int argc, const char* const* argv) { return run_windows(argc, argv, false); }
int run_kld(int argc, const char* const* argv) { return run_windows(argc, argv, true); }

}  // namespace fastkv::tools
