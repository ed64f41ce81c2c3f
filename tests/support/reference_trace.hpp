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
  std::size_t kv_bytes_f16 = 0;  ///< after the last token was generated, unlike our own traces

  /// Of the prompt's cache alone: each fed token but the last added one row per layer and head.
  std::size_t prompt_cache_bytes(const ModelConfig& config) const {
    return kv_bytes_f16 - (generated.size() - 1) * std::size_t(config.n_layer) * std::size_t(config.kv_dim()) * 4;
  }
};

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
  for (const Json& layer : json.at("layers")) {
    out.tokens_in.push_back(layer.at("tokens_in"));
    out.kept.push_back(layer.at("kept").get<std::vector<std::vector<std::int32_t>>>());
  }
  out.options.method = MethodName::fastkv;
  const Json& words = json.at("options");
  for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
    const std::string flag = words[i], value = words[i + 1];
    if (flag == "--method")
      out.options.method = value == "full" ? MethodName::full : MethodName::fastkv;
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
    else
      throw std::runtime_error("unknown option in the reference trace: " + flag);
  }
  return out;
}

/// Parameters of the oracle for `options` on a model of `n_layer` layers: the defaults of spec/cli.md.
inline MethodParams resolved(const MethodOptions& options, int n_layer) {
  if (options.method == MethodName::full) return full_method();
  MethodParams p = fastkv_defaults(n_layer);
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
  p.pooling = options.pooling.value_or(p.pooling);
  p.group_reduce = options.group_reduce.value_or(p.group_reduce);
  p.sinks = options.sinks.value_or(0);
  p.shortcuts = options.shortcuts;
  return p;
}

}  // namespace fastkv::test
