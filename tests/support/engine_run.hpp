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
  if (p.method == MethodName::full) return o;
  o.tsp_layer = p.tsp_layer;
  if (p.tsp_by_rate)
    o.tsp_rate = p.tsp_rate;
  else
    o.tsp_tokens = p.tsp_tokens;
  if (p.proportional)
    o.retention = p.retention;
  else
    o.kv_budget = p.kv_budget;
  o.window = p.window;
  o.tsp_window = p.tsp_window;
  o.kernel = p.kernel;
  o.tsp_shift = p.tsp_shift;
  o.pooling = p.pooling;
  o.group_reduce = p.group_reduce;
  o.sinks = p.sinks;
  return o;
}

/// The decisions of a run, for the oracle to follow.
inline Imposed decisions_of(const Trace& trace) {
  Imposed out;
  for (const LayerTrace& layer : trace.layers) out.kept.push_back(layer.kept);
  if (trace.tsp_layer) out.tsp_kept = trace.tsp_kept;
  return out;
}

}  // namespace fastkv::test
