// Reads the reference traces of fixtures/reference (spec/trace.md) and turns their options into method parameters.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/json.hpp"
#include "fastkv/options.hpp"
#include "reference/oracle.hpp"
#include "support/fixtures.hpp"

namespace fastkv::test {

struct ReferenceTrace {
  std::string dtype;
  std::vector<std::int32_t> prompt;
  MethodOptions options;  ///< what the command line would carry
  std::optional<int> tsp_layer;
  std::vector<std::int32_t> tsp_kept;
  std::vector<std::int64_t> tokens_in;                       ///< [N]
  std::vector<std::vector<std::vector<std::int32_t>>> kept;  ///< [N][heads] positions
  std::vector<std::pair<std::int32_t, double>> first_logits;
  std::vector<std::int32_t> generated;
  std::vector<std::int32_t> selected;  ///< gemfilter's tokens; empty: another method
  std::size_t kv_bytes_f16 = 0;        ///< after the last token was generated, unlike our own traces

  /// Of the prompt's cache alone: each fed token but the last added one row per layer and stored head.
  std::size_t prompt_cache_bytes(int head_dim) const {
    return kv_bytes_f16 - (generated.size() - 1) * kept.size() * kept[0].size() * std::size_t(head_dim) * 4;
  }
  /// Position of the first generated token's key.
  std::int64_t next_position() const { return std::int64_t(selected.empty() ? prompt.size() : selected.size()); }
};

inline MethodName method_named(const std::string& text) {
  for (MethodName method : all_methods())
    if (name(method) == text) return method;
  throw std::runtime_error("unknown method in the reference trace: " + text);
}

/// fixtures/reference/`model`/`name`.json with the prompt beside it.
inline ReferenceTrace read_reference(const std::string& model, const std::string& name) {
  const std::filesystem::path folder = fixtures() / "reference" / model;
  const Json json = Json::parse(std::ifstream(folder / (name + ".json")));
  ReferenceTrace out;
  out.prompt = Json::parse(std::ifstream(folder / "prompt_ids.json")).get<std::vector<std::int32_t>>();
  out.dtype = json.at("dtype");
  out.generated = json.at("generated").get<std::vector<std::int32_t>>();
  out.kv_bytes_f16 = json.at("kv_bytes_f16");
  for (const Json& pair : json.at("first_logits")) out.first_logits.emplace_back(pair.at(0), pair.at(1));
  if (!json.at("tsp").is_null()) {
    out.tsp_layer = json.at("tsp").at("layer").get<int>();
    out.tsp_kept = json.at("tsp").at("kept").get<std::vector<std::int32_t>>();
  }
  if (json.contains("selected")) out.selected = json.at("selected").get<std::vector<std::int32_t>>();
  for (const Json& layer : json.at("layers")) {
    out.tokens_in.push_back(layer.at("tokens_in"));
    out.kept.push_back(layer.at("kept").get<std::vector<std::vector<std::int32_t>>>());
  }
  out.options.method = MethodName::fastkv;
  out.options.min_prompt = 0;
  const Json& words = json.at("options");
  for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
    const std::string flag = words[i], value = words[i + 1];
    if (flag == "--method")
      out.options.method = method_named(value);
    else if (flag == "--retention")
      out.options.retention = std::stod(value);
    else if (flag == "--tsp-rate")
      out.options.tsp_rate = std::stod(value);
    else if (flag == "--tsp-layer")
      out.options.tsp_layer = std::stoi(value);
    else if (flag == "--kv-budget")
      out.options.kv_budget = std::stoll(value);
    else if (flag == "--tsp-tokens")
      out.options.tsp_tokens = std::stoll(value);
    else if (flag == "--kernel")
      out.options.kernel = std::stoi(value);
    else if (flag == "--pooling")
      out.options.pooling = value == "avg" ? Pooling::avg : Pooling::max;
    else if (flag == "--window")
      out.options.window = std::stoi(value);
    else if (flag == "--h2o-mask")
      out.options.h2o_mask = value == "reference" ? H2oMask::reference : H2oMask::causal;
    else if (flag == "--granularity")
      out.options.granularity = value == "kv_head" ? Granularity::kv_head : Granularity::query_head;
    else if (flag == "--filter-layer")
      out.options.filter_layer = std::stoi(value);
    else if (flag == "--recent")
      out.options.recent = std::stod(value);
    else if (flag == "--delta")
      out.options.delta = std::stod(value);
    else if (flag == "--gamma")
      out.options.gamma = std::stod(value);
    else
      throw std::runtime_error("unknown option in the reference trace: " + flag);
  }
  return out;
}

/// Parameters of the oracle for `options` on a model of `n_layer` layers: the defaults of spec/cli.md.
inline MethodParams resolved(const MethodOptions& options, int n_layer) {
  const MethodName method = options.method.value_or(MethodName::fastkv);
  if (method == MethodName::full) return full_method();
  MethodParams p = method_defaults(method, n_layer);
  p.tsp_layer = options.tsp_layer.value_or(p.tsp_layer);
  p.tsp_by_rate = !options.tsp_tokens;
  p.tsp_rate = options.tsp_rate.value_or(p.tsp_rate);
  p.tsp_tokens = options.tsp_tokens.value_or(0);
  p.proportional = !options.kv_budget;
  p.retention = options.retention.value_or(p.retention);
  p.kv_budget = options.kv_budget.value_or(0);
  p.window = options.window.value_or(p.window);
  p.tsp_window = options.tsp_window.value_or(p.window);
  p.kernel = options.kernel.value_or(p.kernel);
  p.tsp_shift = options.tsp_shift.value_or(p.tsp_shift);
  p.pooling = options.pooling.value_or(p.pooling);
  p.group_reduce = options.group_reduce.value_or(p.group_reduce);
  p.sinks = options.sinks.value_or(p.sinks);
  p.granularity = options.granularity.value_or(p.granularity);
  p.h2o_mask = options.h2o_mask.value_or(p.h2o_mask);
  p.filter_layer = options.filter_layer.value_or(p.filter_layer);
  p.recent = options.recent.value_or(p.recent);
  p.delta = options.delta.value_or(p.delta);
  p.gamma = options.gamma.value_or(p.gamma);
  p.shortcuts = options.shortcuts;
  return p;
}

}  // namespace fastkv::test
