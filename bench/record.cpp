// From samples to a record.
#include "bench/record.hpp"

#include <cmath>
#include <limits>

#include "bench/statistics.hpp"
#include "common/format.hpp"

namespace fastkv::bench {

namespace {

OrderedJson number_or_null(double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(nullptr); }

std::string cpu_mask(const std::vector<int>& cpus) {
  std::string digits;  // lowest first
  for (int cpu : cpus) {
    const std::size_t digit = static_cast<std::size_t>(cpu) / 4;
    if (digits.size() <= digit) digits.resize(digit + 1, '0');
    const int value = (digits[digit] <= '9' ? digits[digit] - '0' : digits[digit] - 'a' + 10) | 1 << cpu % 4;
    digits[digit] = "0123456789abcdef"[value];
  }
  if (digits.empty()) digits = "0";
  return "0x" + std::string(digits.rbegin(), digits.rend());
}

const char* name_of(LoadMode mode) {
  return mode == LoadMode::mmap ? "mmap" : mode == LoadMode::mlock ? "mlock" : "none";
}

double median_of(const Measured& measured, double Sample::*field) {
  std::vector<double> values;
  for (const Sample& sample : measured.samples) values.push_back(sample.*field);
  return spread(values).median;
}

/// Bytes read per generated token, on average.
double bytes_of_token(const Measured& measured) {
  return static_cast<double>(measured.plan.decode_weight_bytes + measured.kv_bytes) +
         static_cast<double>(measured.plan.cache_row_bytes) * static_cast<double>(measured.test.n_gen) / 2;
}

}  // namespace

double limit_of(Limits& limits, const EngineInfo& info, const Measured& measured) {
  if (measured.test.n_gen == 0) return limits.operations(info.compute, info.threads_batch);
  if (measured.test.n_prompt > 0) return std::numeric_limits<double>::quiet_NaN();
  return limits.read_bandwidth(static_cast<std::size_t>(bytes_of_token(measured)), info.threads);
}

double share_of(const Measured& measured, const std::vector<double>& limits) {
  const Test& test = measured.test;
  const double work =
      test.n_gen == 0 ? measured.work_flops : bytes_of_token(measured) * static_cast<double>(test.n_gen);
  std::vector<double> shares;
  for (std::size_t i = 0; i < limits.size(); ++i) shares.push_back(work / (measured.samples[i].ns * 1e-9) / limits[i]);
  return spread(shares).median;
}

OrderedJson make_record(const EngineInfo& info, const EngineSettings& settings, const Measured& measured,
                        double share) {
  const Test& test = measured.test;
  const MethodParams& method = measured.plan.method;
  const double tokens = static_cast<double>(test.tokens());
  std::vector<double> ns, ts;
  for (const Sample& sample : measured.samples) {
    ns.push_back(sample.ns);
    ts.push_back(1e9 * tokens / sample.ns);
  }
  const Spread time = spread(ns), speed = spread(ts);
  OrderedJson r;
  r["build_commit"] = build_commit();
  r["build_number"] = 0;
  r["cpu_info"] = cpu_name();
  r["gpu_info"] = info.device;
  r["backends"] = info.device.empty() ? "CPU" : "CUDA";
  r["model_filename"] = settings.options.model;
  r["model_type"] = info.model_type;
  r["model_size"] = info.tensor_bytes;
  r["model_n_params"] = info.n_params;
  r["n_batch"] = measured.plan.n_prompt;  // a prompt goes through each layer whole
  r["n_ubatch"] = settings.options.tile_rows;
  r["n_threads"] = info.threads;
  r["cpu_mask"] = cpu_mask(settings.options.cpus);
  r["type_k"] = name(measured.plan.cache_k);
  r["type_v"] = name(measured.plan.cache_v);
  r["n_gpu_layers"] = info.device.empty() ? 0 : -1;
  r["flash_attn"] = 1;
  r["load_mode"] = name_of(settings.options.load_mode);
  r["n_prompt"] = test.n_prompt;
  r["n_gen"] = test.n_gen;
  r["n_depth"] = test.n_depth;
  r["test_time"] = measured.time;
  r["avg_ns"] = std::llround(time.mean);
  r["stddev_ns"] = std::llround(time.deviation);
  r["avg_ts"] = speed.mean;
  r["stddev_ts"] = speed.deviation;
  r["median_ns"] = std::llround(time.median);
  r["median_ts"] = speed.median;
  r["n_threads_batch"] = info.threads_batch;
  r["method"] = name(method.method);
  const auto if_read = [&](const char* flag, const auto& value) {
    return reads(method.method, flag) ? OrderedJson(value) : OrderedJson(nullptr);
  };
  r["tsp_layer"] = if_read("--tsp-layer", method.tsp_layer);
  r["tsp_rate"] = if_read("--tsp-rate", method.tsp_rate);
  r["retention"] = if_read("--retention", method.retention);
  r["ttft_ms"] = median_of(measured, &Sample::ttft_ms);
  r["tpot_ms"] = test.n_gen > 0 ? OrderedJson(median_of(measured, &Sample::tpot_ms)) : OrderedJson(nullptr);
  r["kv_bytes"] = measured.kv_bytes;
  r["peak_rss_bytes"] = measured.peak_rss;
  r["isa"] = info.isa;
  r["compute"] = info.compute;
  r["numa"] = name(settings.options.numa);
  r["share_of_peak"] = number_or_null(share);
  OrderedJson whole = OrderedJson::array();
  for (double sample : ns) whole.push_back(std::llround(sample));
  r["samples_ns"] = whole;
  r["samples_ts"] = ts;
  return r;
}

}  // namespace fastkv::bench
