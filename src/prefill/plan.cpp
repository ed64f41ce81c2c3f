// Defaults, checks and budgets (spec/methods.md 0.1, 2.2, 3; messages: spec/cli.md).
#include "prefill/plan.hpp"

#include <algorithm>

#include "core/check.hpp"

namespace fastkv {
namespace {

template <class... Parts>
[[noreturn]] void reject(const Parts&... parts) {
  fail(ErrorCode::invalid_option, parts...);
}

void check_rate(const char* flag, const std::optional<double>& rate) {
  if (rate && !(*rate > 0.0 && *rate <= 1.0)) reject(flag, ' ', *rate, ": expected a share in (0, 1]");
}

template <class T>
void check_at_least(const char* flag, const std::optional<T>& value, T least) {
  if (value && *value < least) reject(flag, ' ', *value, ": must be at least ", least);
}

// The compression flag that was given, by name; null: none.
const char* first_compression_flag(const MethodOptions& o) {
  if (o.tsp_layer) return "--tsp-layer";
  if (o.tsp_rate) return "--tsp-rate";
  if (o.tsp_tokens) return "--tsp-tokens";
  if (o.retention) return "--retention";
  if (o.kv_budget) return "--kv-budget";
  if (o.window) return "--window";
  if (o.tsp_window) return "--tsp-window";
  if (o.kernel) return "--kernel";
  if (o.pooling) return "--pooling";
  if (o.group_reduce) return "--group-reduce";
  if (o.sinks) return "--sinks";
  return nullptr;
}

void check_ranges(const MethodOptions& o, int n_layer) {
  if (o.tsp_rate && o.tsp_tokens) reject("--tsp-rate and --tsp-tokens exclude each other");
  if (o.retention && o.kv_budget) reject("--retention and --kv-budget exclude each other");
  check_rate("--tsp-rate", o.tsp_rate);
  check_rate("--retention", o.retention);
  check_at_least<std::int64_t>("--tsp-tokens", o.tsp_tokens, 1);
  check_at_least<std::int64_t>("--kv-budget", o.kv_budget, 1);
  check_at_least("--window", o.window, 1);
  check_at_least("--tsp-window", o.tsp_window, 1);
  check_at_least("--kernel", o.kernel, 1);
  check_at_least("--sinks", o.sinks, 0);
  check_at_least("--min-prompt", o.min_prompt, 0);
  if (o.kernel && *o.kernel % 2 == 0) reject("--kernel ", *o.kernel, ": must be odd");
  if (o.tsp_layer && (*o.tsp_layer < 0 || *o.tsp_layer >= n_layer))
    reject("--tsp-layer ", *o.tsp_layer, ": the model has ", n_layer, " layers (0..", n_layer - 1, ")");
  const std::int64_t window = o.window.value_or(8), tsp_window = o.tsp_window.value_or(int(window));
  const std::int64_t sinks = o.sinks.value_or(0);
  const auto check_room = [&](const char* flag, const std::optional<std::int64_t>& budget, const char* window_flag,
                              std::int64_t w) {
    if (!budget) return;
    if (*budget <= w) reject(flag, ' ', *budget, " leaves no room beyond ", window_flag, ' ', w);
    if (*budget < w + sinks) reject(flag, ' ', *budget, " leaves no room for ", window_flag, ' ', w, " and --sinks ", sinks);
  };
  check_room("--kv-budget", o.kv_budget, "--window", window);
  check_room("--tsp-tokens", o.tsp_tokens, o.tsp_window ? "--tsp-window" : "--window", tsp_window);
}

}  // namespace

std::int64_t truncated(std::int64_t n, double rate) { return std::int64_t(double(n) * rate); }

MethodParams resolve(const MethodOptions& o, int n_layer, std::int64_t n_prompt, std::vector<std::string>& notes) {
  check_ranges(o, n_layer);
  MethodParams p;
  p.method = o.method.value_or(MethodName::fastkv);
  p.shortcuts = o.shortcuts;
  const char* flag = first_compression_flag(o);
  if (p.method == MethodName::full) {
    if (flag) reject(flag, " has no effect with --method full");
    return p;
  }
  const int min_prompt = o.min_prompt.value_or(1024);
  if (!flag && n_prompt < min_prompt) {
    notes.push_back(concat("prompt of ", n_prompt, " tokens runs with --method full: shorter than --min-prompt ",
                           min_prompt));
    p.method = MethodName::full;
    return p;
  }
  p.proportional = !o.kv_budget;
  p.retention = o.retention.value_or(0.1);
  p.kv_budget = o.kv_budget.value_or(0);
  p.tsp_layer = o.tsp_layer.value_or(std::max(0, n_layer / 2 - 1));
  p.tsp_by_rate = !o.tsp_tokens;
  p.tsp_rate = o.tsp_rate.value_or(0.2);
  p.tsp_tokens = o.tsp_tokens.value_or(0);
  p.window = o.window.value_or(8);
  p.tsp_window = o.tsp_window.value_or(p.window);
  p.kernel = o.kernel.value_or(7);
  p.pooling = o.pooling.value_or(Pooling::max);
  p.group_reduce = o.group_reduce.value_or(GroupReduce::sum);
  p.sinks = o.sinks.value_or(0);
  if (p.tsp_layer == n_layer - 1)
    notes.push_back(concat("warning: --tsp-layer ", p.tsp_layer, " is the last layer: every layer sees all tokens"));
  if (p.proportional && p.tsp_by_rate && p.retention > p.tsp_rate)
    notes.push_back(concat("warning: --retention ", p.retention, " is above --tsp-rate ", p.tsp_rate,
                           ": layers after TSP keep all propagated tokens"));
  return p;
}

std::vector<LayerPlan> plan_layers(const MethodParams& p, int n_layer, std::int64_t n_prompt) {
  std::vector<LayerPlan> layers;
  std::int64_t n = n_prompt;
  for (int l = 0; l < n_layer; ++l) {
    LayerPlan layer{n, n, n};
    // C (0.1): the layer's own input length in proportional mode, r/ρ after TSP, divided once in double
    std::int64_t budget = p.kv_budget;
    if (p.proportional) {
      if (l <= p.tsp_layer)
        budget = truncated(n, p.retention);
      else
        budget = p.tsp_by_rate ? truncated(n, p.retention / p.tsp_rate) : truncated(n_prompt, p.retention);
    }
    // skipped iff n < C; clamped otherwise (3, item 1)
    const bool compress = p.method == MethodName::fastkv && n > p.window && n >= budget;
    if (compress) {
      layer.kept = std::min(n, std::max<std::int64_t>(budget, p.window + p.sinks));
      if (l == p.tsp_layer && n > p.tsp_window) {
        const std::int64_t tokens = p.tsp_by_rate ? truncated(n, p.tsp_rate) : p.tsp_tokens;
        layer.tokens_out = std::min(n, std::max<std::int64_t>(tokens, p.tsp_window + p.sinks));
      }
    }
    n = layer.tokens_out;
    if (l == n_layer - 1 && p.shortcuts) layer.tokens_out = 1;   // S2
    layers.push_back(layer);
  }
  return layers;
}

double prefill_flops(const std::vector<LayerPlan>& layers, const ModelConfig& c) {
  const double d = c.n_embd, q = c.q_dim(), kv = c.kv_dim(), ff = c.n_ff;
  double total = 0;
  for (const LayerPlan& l : layers) {
    const double n = double(l.tokens_in), out = double(l.tokens_out);
    // visible keys: all for a single last row, half on average for many
    total += 2 * n * d * 2 * kv + 2 * out * (2 * d * q + 3 * d * ff) + 4 * q * out * (out == 1 ? n : (n + 1) / 2);
  }
  return total;
}

}  // namespace fastkv
