// Rounds of measurements, medians and shares.
#include "bench/roofline/rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/format.hpp"
#include "common/signals.hpp"
#include "common/table.hpp"
#include "fastkv/engine.hpp"
#include "fastkv/error.hpp"

namespace fastkv::bench {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::string unit_of(Bound bound) {
  return bound == Bound::memory || bound == Bound::cache ? "GB/s" : bound == Bound::exponentials ? "Gexp/s" : "Gop/s";
}

std::string percent(double share) { return std::isnan(share) ? "" : tools::format("%.1f %%", 100 * share); }

OrderedJson share_or_null(double share) { return std::isnan(share) ? OrderedJson(nullptr) : OrderedJson(share); }

}  // namespace

void measure(const std::vector<Limit>& limits, const std::vector<Timed>& kernels, const Rounds& rounds,
             std::vector<Row>& rows) {
  std::vector<std::vector<double>> most(limits.size()), rates(kernels.size());
  std::vector<std::int64_t> runs(kernels.size(), 0);
  for (int round = 0; round < rounds.count; ++round) {
    for (std::size_t l = 0; l < limits.size(); ++l) most[l].push_back(limits[l].measure());
    for (std::size_t k = 0; k < kernels.size(); ++k) {
      if (tools::stop_flag()) throw Error(ErrorCode::cancelled, "stopped");
      const Timed& kernel = kernels[k];
      if (runs[k] == 0) {
        kernel.seconds(1);  // touches the buffers
        runs[k] = std::max<std::int64_t>(1, std::llround(rounds.burst_seconds / std::max(kernel.seconds(1), 1e-7)));
      }
      rates[k].push_back(kernel.work * kernel.calls * static_cast<double>(runs[k]) / kernel.seconds(runs[k]));
    }
  }
  const auto add = [&](const std::string& name, const std::string& shape, Bound bound,
                       const std::vector<double>& samples, double share, double call_us) {
    std::vector<double> scaled = samples;
    for (double& x : scaled) x *= 1e-9;
    rows.push_back(
        {name, shape, bench::name(bound), unit_of(bound), rounds.threads, spread(scaled), share, call_us});
  };
  for (std::size_t l = 0; l < limits.size(); ++l)
    add(limits[l].name, limits[l].shape, limits[l].bound, most[l], kNone, kNone);
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    const double rate = spread(rates[k]).median;
    // a limit is the most that was seen; noise only lowers it
    double limit = kNone;
    for (std::size_t l = 0; l < limits.size(); ++l) {
      if (limits[l].bound == kernels[k].bound)
        limit = std::fmax(limit, *std::max_element(most[l].begin(), most[l].end()));  // NaN is no number to fmax
    }
    add(kernels[k].name, kernels[k].shape, kernels[k].bound, rates[k], rate / limit,
        rounds.on_device ? 1e6 * kernels[k].work / rate : kNone);
  }
}

std::string table_text(const std::vector<Row>& rows, const Limits& limits) {
  std::vector<std::string> header = {"kernel", "shape",  "threads",  "rate",
                                     "unit",   "spread", "bound by", "of the bound"};
  if (limits.device()) header.push_back("us a call");
  tools::Table table(header);
  for (const Row& row : rows) {
    std::vector<std::string> cells = {row.name,
                                      row.shape,
                                      tools::format("%d", row.threads),
                                      tools::format("%.1f", row.rate.median),
                                      row.unit,
                                      tools::format("%.1f %%", 100 * row.rate.deviation / row.rate.mean),
                                      row.bound,
                                      percent(row.share)};
    if (limits.device()) cells.push_back(std::isnan(row.call_us) ? "" : tools::format("%.1f", row.call_us));
    table.row(std::move(cells));
  }
  return table.text();
}

OrderedJson json_of(const Row& row, const Limits& limits) {
  const DeviceRoofline* const device = limits.device();
  OrderedJson json;
  json["kernel"] = row.name;
  json["shape"] = row.shape;
  json["isa"] = device ? device->isa() : simd::name(limits.isa());
  json["cpu_info"] = cpu_name();
  if (device) json["gpu_info"] = device->device();
  json["build_commit"] = build_commit();
  json["n_threads"] = row.threads;
  json["unit"] = row.unit;
  json["median"] = row.rate.median;
  json["stddev"] = row.rate.deviation;
  json["bound"] = row.bound;
  json["share_of_peak"] = share_or_null(row.share);
  if (device) json["call_us"] = share_or_null(row.call_us);
  return json;
}

}  // namespace fastkv::bench
