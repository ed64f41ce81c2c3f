// Engines and greedy runs as the end-to-end tests want them.
#pragma once

#include <string>

#include "fastkv/engine.hpp"
#include "reference/oracle.hpp"

namespace fastkv::test {

inline EngineOptions engine_options(const std::string& model, Compute compute, int threads = 2) {
  EngineOptions options;
  options.model = model;
  options.compute = compute;
  options.threads = options.threads_batch = threads;
  return options;
}

/// Greedy, past any end of generation, with the trace.
inline RunOptions greedy(const MethodOptions& method, int n_predict, int context = 512) {
  RunOptions options;
  options.method = method;
  options.sampling.temperature = 0;
  options.sampling.ignore_eos = true;
  options.n_predict = n_predict;
  options.context = context;
  options.record_trace = true;
  return options;
}

/// What a command line with these parameters would carry.
inline MethodOptions options_of(const MethodParams& p) {
  MethodOptions o;
  o.method = p.method;
  o.shortcuts = p.shortcuts;
  const auto give = [&](const char* flag, auto& field, auto value) {
    if (reads(p.method, flag)) field = value;
  };
  give("--tsp-layer", o.tsp_layer, p.tsp_layer);
  if (p.tsp_by_rate)
    give("--tsp-rate", o.tsp_rate, p.tsp_rate);
  else
    give("--tsp-tokens", o.tsp_tokens, p.tsp_tokens);
  if (p.proportional)
    give("--retention", o.retention, p.retention);
  else
    give("--kv-budget", o.kv_budget, p.kv_budget);
  give("--window", o.window, p.window);
  give("--tsp-window", o.tsp_window, p.tsp_window);
  give("--kernel", o.kernel, p.kernel);
  give("--tsp-shift", o.tsp_shift, p.tsp_shift);
  give("--pooling", o.pooling, p.pooling);
  if (p.method == MethodName::fastkv || p.granularity == Granularity::kv_head)
    give("--group-reduce", o.group_reduce, p.group_reduce);
  give("--sinks", o.sinks, p.sinks);
  give("--granularity", o.granularity, p.granularity);
  give("--h2o-mask", o.h2o_mask, p.h2o_mask);
  give("--filter-layer", o.filter_layer, p.filter_layer);
  give("--recent", o.recent, p.recent);
  give("--delta", o.delta, p.delta);
  give("--gamma", o.gamma, p.gamma);
  if (!p.head_budgets.empty()) give("--head-budgets", o.head_budgets, p.head_budgets);
  return o;
}

/// The decisions of a run, for the oracle to follow.
inline Imposed decisions_of(const Trace& trace) {
  Imposed out;
  for (const LayerTrace& layer : trace.layers) out.kept.push_back(layer.kept);
  if (trace.tsp_layer) out.tsp_kept = trace.tsp_kept;
  out.selected = trace.selected;
  return out;
}

}  // namespace fastkv::test
