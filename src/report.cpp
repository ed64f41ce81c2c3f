// The trace, the statistics and progress as JSON; logits as NumPy; token ids from JSON.
#include "fastkv/report.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>

#include "atomic_file.hpp"
#include "core/check.hpp"
#include "core/json.hpp"

namespace fastkv {

namespace {

const char* name_of(Finish finish) {
  switch (finish) {
    case Finish::length:
      return "length";
    case Finish::end_of_generation:
      return "end_of_generation";
    case Finish::stopped_by_caller:
      return "stopped_by_caller";
    case Finish::context_full:
      return "context_full";
  }
  return "";
}

template <class T>
OrderedJson optional_json(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

/// The effective options under their names on the command line; only those the method uses.
OrderedJson options_of(const RunPlan& plan) {
  const MethodParams& method = plan.method;
  OrderedJson options;
  options["method"] = name(method.method);
  const auto put = [&](const char* flag, const auto& value, bool used = true) {
    if (!used || !reads(method.method, flag)) return;
    std::string key(flag + 2);
    std::replace(key.begin(), key.end(), '-', '_');
    options[key] = value;
  };
  put("--tsp-layer", method.tsp_layer);
  put("--tsp-rate", method.tsp_rate, method.tsp_by_rate);
  put("--tsp-tokens", method.tsp_tokens, !method.tsp_by_rate);
  put("--retention", method.retention, method.proportional);
  put("--kv-budget", method.kv_budget, !method.proportional);
  put("--window", method.window);
  put("--tsp-window", method.tsp_window);
  put("--tsp-shift", method.tsp_shift);
  put("--kernel", method.kernel);
  put("--pooling", name(method.pooling));
  put("--group-reduce", name(method.group_reduce));
  put("--sinks", method.sinks);
  put("--granularity", name(method.granularity));
  put("--h2o-mask", name(method.h2o_mask));
  put("--filter-layer", method.filter_layer);
  put("--recent", method.recent);
  put("--delta", method.delta);
  put("--gamma", method.gamma);
  put("--head-budgets", method.head_budgets);
  options["context"] = plan.context;
  options["cache_type_k"] = name(plan.cache_k);
  options["cache_type_v"] = name(plan.cache_v);
  return options;
}

OrderedJson stages_json(const StageTimes& times) {
  OrderedJson json;
  for (int s = 0; s < kStages; ++s) json[name(Stage(s))] = times.ms[s];
  return json;
}

double per_second(double count, double ms) { return ms > 0 ? 1000 * count / ms : 0; }

}  // namespace

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

void write_trace(const std::string& path, const RunResult& result) {
  const Trace& trace = result.trace;
  OrderedJson json;
  json["method"] = name(result.plan.method.method);
  json["n_prompt"] = result.plan.n_prompt;
  json["options"] = options_of(result.plan);
  json["tsp"] = nullptr;
  if (trace.tsp_layer) json["tsp"] = {{"layer", *trace.tsp_layer}, {"kept", trace.tsp_kept}};
  if (!trace.selected.empty()) json["selected"] = trace.selected;
  json["layers"] = OrderedJson::array();
  for (const LayerTrace& layer : trace.layers) {
    json["layers"].push_back(
        {{"tokens_in", layer.tokens_in}, {"kept", layer.kept}, {"coverage", optional_json(layer.coverage)}});
  }
  json["next_position"] = trace.next_position;
  json["first_logits"] = trace.first_logits;
  json["generated"] = result.tokens;
  json["kv_bytes_f16"] = trace.kv_bytes_f16;
  write_file(path, dump(json) + "\n");
}

void write_npy(const std::string& path, const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  check(rows >= 0 && cols >= 0 && static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) == values.size(),
        ErrorCode::internal, path, ": expected ", rows, " x ", cols, " values, found ", values.size());
  // NumPy format 1.0: magic, version, header length, a Python dictionary padded so that the data is aligned to 64 bytes
  std::string dictionary = concat("{'descr': '<f4', 'fortran_order': False, 'shape': (", rows, ", ", cols, "), }");
  constexpr std::size_t kPrefix = 10;
  dictionary.append((64 - (kPrefix + dictionary.size() + 1) % 64) % 64, ' ');
  dictionary += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dictionary.size() & 0xFF);
  header += static_cast<char>(dictionary.size() >> 8);
  header += dictionary;
  AtomicFile file(path);
  file.write(header.data(), header.size());
  file.write(values.data(), values.size() * sizeof(float));
  file.commit();
}

std::vector<std::int32_t> parse_token_ids(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  check(!json.is_discarded(), ErrorCode::bad_file, "expected a JSON array of token ids, found text that is not JSON");
  check(json.is_array(), ErrorCode::bad_file, "expected a JSON array of token ids, found ", json.type_name());
  std::vector<std::int32_t> ids;
  ids.reserve(json.size());
  for (const Json& id : json) {
    check(id.is_number_integer() && id >= 0 && id <= std::numeric_limits<std::int32_t>::max(), ErrorCode::bad_file,
          "expected a token id at index ", ids.size(), ", found ", dump(id).substr(0, 40));
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

std::vector<std::int32_t> read_token_ids(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  check(file != nullptr, ErrorCode::io, "cannot open ", path, ": ", std::strerror(errno));
  std::string text;
  char buffer[1 << 16];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, file.get())) text.append(buffer, n);
  check(std::ferror(file.get()) == 0, ErrorCode::io, "cannot read ", path, ": ", std::strerror(errno));
  try {
    return parse_token_ids(text);
  } catch (const Error& error) {
    fail(error.code(), path, ": ", error.what());
  }
}

std::string options_json(const RunPlan& plan) { return dump(options_of(plan)); }

std::string token_ids_json(const std::vector<std::int32_t>& ids) { return dump(Json(ids)); }

std::string progress_json(const Progress& progress) {
  OrderedJson json;
  json["event"] = progress.stage == Progress::Stage::load      ? "load"
                  : progress.stage == Progress::Stage::prefill ? "prefill"
                                                               : "decode";
  json["total"] = progress.total;
  json["processed"] = progress.processed;
  if (progress.stage == Progress::Stage::prefill) json["layer"] = progress.layer;
  json["time_ms"] = progress.time_ms;
  return dump(json);
}

std::string stats_json(const EngineInfo& info, const RunResult& result, double tokenize_ms, double ttft_ms) {
  const RunStats& stats = result.stats;
  OrderedJson json;
  json["model"] = {{"name", info.model_name},
                   {"type", info.model_type},
                   {"parameters", info.n_params},
                   {"file_bytes", info.file_bytes},
                   {"layers", info.n_layer}};
  json["machine"] = {{"device", info.device.empty() ? "cpu" : info.device},
                     {"isa", info.isa},
                     {"compute", info.compute},
                     {"decode_compute", info.decode_compute},
                     {"attention", info.attention},
                     {"gemm", info.gemm},
                     {"threads", info.threads},
                     {"threads_batch", info.threads_batch},
                     {"numa", info.numa}};
  json["options"] = options_of(result.plan);
  json["seed"] = stats.seed;
  json["n_prompt"] = stats.n_prompt;
  json["n_generated"] = result.tokens.size();
  json["finish"] = name_of(result.finish);
  json["tokenize_ms"] = tokenize_ms;
  json["prefill_ms"] = stats.prefill_ms;
  json["prefill_tokens_per_second"] = per_second(static_cast<double>(stats.n_prompt), stats.prefill_ms);
  json["sample_ms"] = stats.sample_ms;
  json["ttft_ms"] = ttft_ms;
  json["decode_ms"] = stats.decode_ms;
  json["n_decoded"] = stats.n_decoded;
  json["decode_tokens_per_second"] = per_second(static_cast<double>(stats.n_decoded), stats.decode_ms);
  json["token_layers"] = stats.token_layers;
  json["cache_bytes"] = stats.cache_bytes;
  json["cache_bytes_full"] = stats.cache_bytes_full;
  json["coverage"] = optional_json(stats.coverage);
  json["layer_coverage"] = OrderedJson::array();
  for (const std::optional<double>& layer : stats.layer_coverage)
    json["layer_coverage"].push_back(optional_json(layer));
  json["peak_rss_bytes"] = stats.peak_rss;
  OrderedJson stages;  // milliseconds
  stages["layers"] = OrderedJson::array();
  for (const StageTimes& layer : stats.prefill_layers) stages["layers"].push_back(stages_json(layer));
  stages["ends"] = stages_json(stats.prefill_ends);
  stages["decode"] = stages_json(stats.decode_stages);
  json["stages_ms"] = stages;
  return dump(json, 2);
}

}  // namespace fastkv
