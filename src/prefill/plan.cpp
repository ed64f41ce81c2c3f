// Defaults and checks of a method's options (messages: spec/cli.md), and the plan of its layers.
#include "prefill/plan.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "prefill/methods/headkv.hpp"

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

void check_layer(const char* flag, const std::optional<int>& layer, int n_layer) {
  if (layer && (*layer < 0 || *layer >= n_layer))
    reject(flag, ' ', *layer, ": the model has ", n_layer, " layers (0..", n_layer - 1, ")");
}

void check_ranges(const MethodOptions& o, MethodName method, int n_layer) {
  for (const std::string& flag : given_flags(o))
    if (!reads(method, flag)) reject(flag, " has no effect with --method ", name(method));
  if (o.tsp_rate && o.tsp_tokens) reject("--tsp-rate and --tsp-tokens exclude each other");
  if (o.retention && o.kv_budget) reject("--retention and --kv-budget exclude each other");
  check_rate("--tsp-rate", o.tsp_rate);
  check_rate("--retention", o.retention);
  check_at_least<std::int64_t>("--tsp-tokens", o.tsp_tokens, 1);
  check_at_least<std::int64_t>("--kv-budget", o.kv_budget, 1);
  check_at_least("--window", o.window, 1);
  check_at_least("--tsp-window", o.tsp_window, 1);
  check_at_least("--kernel", o.kernel, 1);
  check_at_least("--tsp-shift", o.tsp_shift, 0);
  check_at_least("--sinks", o.sinks, 0);
  check_at_least("--min-prompt", o.min_prompt, 0);
  if (o.kernel && *o.kernel % 2 == 0) reject("--kernel ", *o.kernel, ": must be odd");
  check_layer("--tsp-layer", o.tsp_layer, n_layer);
  check_layer("--filter-layer", o.filter_layer, n_layer);
  if (o.pyramid && *o.pyramid != 35 && *o.pyramid != 50 && *o.pyramid != 60)
    reject("--pyramid ", *o.pyramid, ": expected 35, 50 or 60");
  for (const auto& [flag, given] : {std::pair{"--recent", o.recent.has_value()},
                                    {"--delta", o.delta.has_value()},
                                    {"--gamma", o.gamma.has_value()}})
    if (o.pyramid && given) reject("--pyramid and ", flag, " exclude each other");
  check_rate("--recent", o.recent);
  check_rate("--delta", o.delta);
  if (o.gamma && !(*o.gamma > 0 && *o.gamma <= 1e6)) reject("--gamma ", *o.gamma, ": must be above 0, at most 1e6");
  if (method == MethodName::headkv && !o.head_budgets) reject("--method headkv needs --head-budgets FILE.json");
  if (o.group_reduce && method != MethodName::fastkv && o.granularity != Granularity::kv_head)
    reject("--group-reduce has no effect without --granularity kv_head");
  const std::int64_t window = o.window.value_or(8), tsp_window = o.tsp_window.value_or(int(window));
  const std::int64_t sinks = o.sinks.value_or(0);
  const auto check_room = [&](const char* flag, const std::optional<std::int64_t>& budget, const char* window_flag,
                              std::int64_t w) {
    if (!budget) return;
    if (*budget <= w) reject(flag, ' ', *budget, " leaves no room beyond ", window_flag, ' ', w);
    if (*budget < w + sinks)
      reject(flag, ' ', *budget, " leaves no room for ", window_flag, ' ', w, " and --sinks ", sinks);
  };
  if (reads(method, "--window") && method != MethodName::headkv)  // headkv's window comes on top
    check_room("--kv-budget", o.kv_budget, "--window", window);
  if (o.kv_budget && method == MethodName::streamingllm && *o.kv_budget <= o.sinks.value_or(4))
    reject("--kv-budget ", *o.kv_budget, " leaves no room beyond --sinks ", o.sinks.value_or(4));
  check_room("--tsp-tokens", o.tsp_tokens, o.tsp_window ? "--tsp-window" : "--window", tsp_window);
}

}  // namespace

MethodParams resolve(const MethodOptions& o, const ModelConfig& config, std::int64_t n_prompt,
                     std::vector<std::string>& notes) {
  const int n_layer = config.n_layer;
  MethodParams p;
  p.method = o.method.value_or(MethodName::fastkv);
  check_ranges(o, p.method, n_layer);
  p.shortcuts = o.shortcuts;
  if (p.method == MethodName::full) return p;
  const int min_prompt = o.min_prompt.value_or(1024);
  if (given_flags(o).empty() && n_prompt < min_prompt) {
    notes.push_back(
        concat("prompt of ", n_prompt, " tokens runs with --method full: shorter than --min-prompt ", min_prompt));
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
  p.tsp_shift = o.tsp_shift.value_or(0);
  if (p.tsp_shift > p.kernel / 2)
    reject("--tsp-shift ", p.tsp_shift, " is above half of --kernel ", p.kernel, ": a score would leave its own row out");
  p.pooling = o.pooling.value_or(Pooling::max);
  p.group_reduce = o.group_reduce.value_or(GroupReduce::sum);
  p.sinks = o.sinks.value_or(p.method == MethodName::streamingllm ? 4 : 0);
  p.granularity = o.granularity.value_or(Granularity::query_head);
  p.h2o_mask = o.h2o_mask.value_or(H2oMask::causal);
  p.filter_layer = o.filter_layer.value_or(std::max(0, n_layer / 2 - 1));
  // the authors' sets for Llama (spec/methods.md 2.7)
  const int set = o.pyramid.value_or(60);
  p.recent = o.recent.value_or(set == 35 ? 0.01 : 0.2);
  p.delta = o.delta.value_or(set == 35 ? 0.01 : set == 50 ? 0.3 : 0.7);
  p.gamma = o.gamma.value_or(1.2);
  if (o.head_budgets) {
    p.head_budgets = *o.head_budgets;
    p.head_shares = read_head_shares(*o.head_budgets, n_layer, config.n_head);
  }
  if (p.method != MethodName::fastkv) return p;
  if (p.tsp_layer == n_layer - 1)
    notes.push_back(concat("warning: --tsp-layer ", p.tsp_layer, " is the last layer: every layer sees all tokens"));
  if (p.proportional && p.tsp_by_rate && p.retention > p.tsp_rate)
    notes.push_back(concat("warning: --retention ", p.retention, " is above --tsp-rate ", p.tsp_rate,
                           ": layers after TSP keep all propagated tokens"));
  return p;
}

void plan_layers(RunPlan& plan, const ModelConfig& config) {
  const auto method = make_method(plan.method, config, plan.n_prompt);
  plan.stored_heads = method->stored_heads();
  plan.filter_layers = method->filter_plan();
  std::int64_t n = plan.filter_layers.empty() ? plan.n_prompt : plan.filter_layers.back().tokens_out;
  plan.layers.clear();
  for (int l = 0; l < config.n_layer; ++l) {
    plan.layers.push_back(method->plan(l, n));
    n = plan.layers.back().tokens_out;
  }
  if (plan.method.shortcuts) plan.layers.back().tokens_out = 1;  // S2
}

std::int64_t scoring_rows(const RunPlan& plan, const ModelConfig& config) {
  const auto method = make_method(plan.method, config, plan.n_prompt);
  std::int64_t rows = 0;
  for (const auto* layers : {&plan.filter_layers, &plan.layers})
    for (std::size_t l = 0; l < layers->size(); ++l) rows = std::max(rows, method->needs(int(l), (*layers)[l]).rows);
  return rows;
}

double prefill_flops(const RunPlan& plan, const ModelConfig& c) {
  const double d = c.n_embd, q = c.q_dim(), kv = c.kv_dim(), ff = c.n_ff;
  double total = 0;
  for (const auto* layers : {&plan.filter_layers, &plan.layers})
    for (const LayerPlan& l : *layers) {
      const bool chooses = layers == &plan.filter_layers && &l == &layers->back();  // S4: nothing but its keys
      const double n = double(l.tokens_in), out = chooses ? 0 : double(l.tokens_out);
      // visible keys: all for a single last row, half on average for many
      total += 2 * n * d * (chooses ? 1 : 2) * kv + 2 * out * (2 * d * q + 3 * d * ff) +
               4 * q * out * (out == 1 ? n : (n + 1) / 2);
    }
  return total;
}

}  // namespace fastkv
