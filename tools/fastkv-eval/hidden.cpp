// fastkv-eval hidden and choose-tsp: how far a method's hidden states are from full's, by the layer at which it drops
// tokens (the paper's figure 3 and equation 3).
#include <cmath>
#include <limits>
#include <optional>
#include <span>

#include "common/format.hpp"
#include "common/lists.hpp"
#include "common/table.hpp"
#include "fastkv-eval/evaluation.hpp"
#include "fastkv-eval/statistics.hpp"
#include "fastkv-eval/subcommands.hpp"
#include "fastkv-eval/text_windows.hpp"

namespace fastkv::tools {

namespace {

/// fastkv with its TSP layer, or gemfilter with its filter layer, at `layer`.
struct Variant {
  MethodName method;
  int layer;
};

struct Flags : EvalFlags {
  TextFlags text;
  std::int64_t length = 1024;

  Flags() { limit = 8; }
  void declare_text(CommandLine& command) {
    command.group("Text");
    text.declare(command);
    command.option("--length", "N", length, "tokens of a prompt; the text is cut into prompts (default 1024)",
                   Limits<std::int64_t>{2, std::int64_t{1} << 40, "must be 2 or more"});
    command.option("--limit", "N", limit, "prompts, from the beginning of the text (default 8)",
                   Limits<std::int64_t>{1, std::int64_t{1} << 40, "must be 1 or more"});
  }
};

RunOptions options_of(const Evaluation& evaluation, const Variant& variant) {
  RunOptions options = evaluation.options_for(variant.method);
  options.n_predict = 0;
  options.record_hidden = true;
  if (variant.method == MethodName::fastkv) options.method.tsp_layer = variant.layer;
  if (variant.method == MethodName::gemfilter) options.method.filter_layer = variant.layer;
  return options;
}

/// ‖full − other‖₂ / ‖full‖₂ of each of the layers' rows.
std::vector<double> distances(const std::vector<float>& full, const std::vector<float>& other, std::size_t layers) {
  const std::size_t width = full.size() / layers;
  std::vector<double> found;
  for (std::size_t l = 0; l < layers; ++l) {
    double difference = 0, norm = 0;
    for (std::size_t i = l * width; i < (l + 1) * width; ++i) {
      difference += (double(full[i]) - other[i]) * (double(full[i]) - other[i]);
      norm += double(full[i]) * full[i];
    }
    found.push_back(std::round(std::sqrt(difference / norm) * 1e6) / 1e6);
  }
  return found;
}

/// Of one variant over the prompts.
struct Curve {
  Variant variant;
  std::vector<double> layers;  ///< [N] means
  Mean final, prefill_ms;
};

std::vector<Curve> measure(Evaluation& evaluation, const Flags& flags, const std::vector<Variant>& variants) {
  const std::vector<Tokens> prompts =
      read_windows(flags.text.file, flags.length, flags.length, flags.limit, evaluation.tokenizer());
  const auto key = [](std::size_t p, const Variant& v) { return format("%zu/%s/%d", p, name(v.method), v.layer); };
  std::vector<std::string> keys;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    for (const Variant& variant : variants) keys.push_back(key(p, variant));
  }
  for (const Variant& variant : variants)
    evaluation.check_plan(prompts[0].size(), options_of(evaluation, variant), flags.text.file);
  evaluation.setting("text", flags.text.file);
  evaluation.setting("length", flags.length);
  evaluation.begin("runs", keys);

  const auto layers = static_cast<std::size_t>(evaluation.engine().info().n_layer);
  std::vector<Curve> curves;
  std::vector<std::vector<double>> finals(variants.size()), times(variants.size());
  for (const Variant& variant : variants) curves.push_back({variant, std::vector<double>(layers), {}, {}});
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    std::optional<RunResult> full;  // run once a prompt, when a first example needs it
    for (std::size_t v = 0; v < variants.size(); ++v) {
      const OrderedJson& example = evaluation.example(key(p, variants[v]), [&] {
        if (!full) full = evaluation.run(prompts[p], options_of(evaluation, {MethodName::full, 0}));
        const RunResult result = evaluation.run(prompts[p], options_of(evaluation, variants[v]));
        const std::vector<double> found = distances(full->hidden, result.hidden, layers);
        return OrderedJson{{"prompt", p},
                           {"method", name(variants[v].method)},
                           {"layer", variants[v].layer},
                           {"distance", found},
                           {"final", found.back()},
                           {"prefill_ms", result.stats.prefill_ms}};
      });
      for (std::size_t l = 0; l < layers; ++l)
        curves[v].layers[l] += example["distance"][l].get<double>() / static_cast<double>(prompts.size());
      finals[v].push_back(example["final"]);
      times[v].push_back(example["prefill_ms"]);
    }
  }
  for (std::size_t v = 0; v < variants.size(); ++v) {
    curves[v].final = mean_of(finals[v]);
    curves[v].prefill_ms = mean_of(times[v]);
  }
  return curves;
}

OrderedJson scores_of(const std::vector<Curve>& curves, std::int64_t prompts) {
  OrderedJson scores = OrderedJson::array();
  for (const Curve& curve : curves) {
    scores.push_back({{"method", name(curve.variant.method)},
                      {"layer", curve.variant.layer},
                      {"n", prompts},
                      {"final", json_of(curve.final)},
                      {"distance", curve.layers},
                      {"prefill_ms", json_of(curve.prefill_ms)}});
  }
  return scores;
}

Table table_of(const std::vector<Curve>& curves) {
  Table table({"method", "layer", "distance from full", "prefill"});
  for (const Curve& curve : curves) {
    table.row({name(curve.variant.method), std::to_string(curve.variant.layer), text_of(curve.final),
               format("%.0f ms", curve.prefill_ms.mean)});
  }
  return table;
}

/// Layers of a list, each within 0 .. n − 1.
std::vector<int> parse_layers(const std::string& text, int n) {
  std::vector<int> layers;
  for (std::int64_t layer : parse_counts(text)) {
    if (layer >= n)
      throw UsageError(
          format("--layers %lld: the model has %d layers (0..%d)", static_cast<long long>(layer), n, n - 1));
    layers.push_back(static_cast<int>(layer));
  }
  return layers;
}

}  // namespace

int run_hidden(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval hidden", "-m FILE.gguf -f TEXT [options]",
                      "Distance of the last token's hidden state, after each layer, from that under full attention: "
                      "fastkv by its TSP layer, gemfilter by its filter layer.");
  Flags flags;
  std::string layers;
  flags.methods = {{MethodName::fastkv, MethodName::gemfilter}};
  flags.declare_model(command);
  flags.declare_text(command);
  command.option("--layers", "LIST", layers,
                 "TSP and filter layers to try: 3,7,11 or 3-27+4 (default: all but the last)");
  flags.declare_methods(command, "fastkv,gemfilter (default), or one of them; each reads those flags that it knows");
  flags.declare_output(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  flags.text.check();
  for (MethodName method : flags.methods.methods) {
    if (method != MethodName::fastkv && method != MethodName::gemfilter)
      throw UsageError(std::string("--method ") + name(method) +
                       ": expected fastkv or gemfilter, which choose a layer");
  }
  for (const char* fixed : {"--tsp-layer", "--filter-layer"}) {
    if (command.given(fixed)) throw UsageError(std::string(fixed) + ": expected --layers, which is a list");
  }
  Evaluation evaluation(command, flags, "fastkv-eval hidden");
  const int n = evaluation.engine().info().n_layer;
  const std::vector<int> tried = parse_layers(layers.empty() ? format("0-%d", n - 2) : layers, n);
  std::vector<Variant> variants;
  for (MethodName method : evaluation.methods()) {
    for (int layer : tried) variants.push_back({method, layer});
  }
  const std::vector<Curve> curves = measure(evaluation, flags, variants);
  evaluation.finish(scores_of(curves, flags.limit), table_of(curves).text());
  return 0;
}

int run_choose_tsp(int argc, const char* const* argv) {
  CommandLine command("fastkv-eval choose-tsp", "-m FILE.gguf -f TEXT [options]",
                      "The TSP layer whose final hidden states are nearest to those of full attention on a text of "
                      "yours.");
  Flags flags;
  std::optional<int> most;
  double within = 0;
  flags.methods = {{MethodName::fastkv}};
  flags.declare_model(command);
  flags.declare_text(command);
  command.option("--max-layer", "N", most, "the last layer to try (default: half the layers)",
                 Limits<int>{0, 1 << 20, "must be 0 or more"});
  command.option("--within", "X", within,
                 "take the first layer whose distance is at most X above the smallest (default 0)",
                 Limits<double>{0, std::numeric_limits<double>::max(), "must be 0 or more"});
  command.group("Method");
  flags.method.declare_parameters(command);
  flags.declare_output(command);
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  flags.check();
  flags.text.check();
  if (command.given("--tsp-layer")) throw UsageError("--tsp-layer is what choose-tsp looks for");
  Evaluation evaluation(command, flags, "fastkv-eval choose-tsp");
  const int n = evaluation.engine().info().n_layer, last = most.value_or(n / 2);
  if (last > n - 2) throw UsageError(format("--max-layer %d: the last layer but one is %d", last, n - 2));
  std::vector<Variant> variants;
  for (int layer = 0; layer <= last; ++layer) variants.push_back({MethodName::fastkv, layer});
  const std::vector<Curve> curves = measure(evaluation, flags, variants);
  double best = std::numeric_limits<double>::infinity();
  for (const Curve& curve : curves) best = std::min(best, curve.final.mean);
  const Curve* chosen = nullptr;
  for (const Curve& curve : curves) {
    if (!chosen && curve.final.mean <= best + within) chosen = &curve;
  }
  OrderedJson scores = scores_of(curves, flags.limit);
  for (OrderedJson& score : scores) score["chosen"] = score["layer"] == chosen->variant.layer;
  evaluation.finish(std::move(scores), table_of(curves).text() + format("\n--tsp-layer %d\n", chosen->variant.layer));
  return 0;
}

}  // namespace fastkv::tools
