// A test's result as a flat record: llama-bench's fields first, ours after them.
#pragma once

#include <vector>

#include "bench/roofline/limits.hpp"
#include "bench/runner.hpp"
#include "core/json.hpp"

namespace fastkv::bench {

/// How the engine of a result was asked for.
struct EngineSettings {
  EngineOptions options;
  RunOptions run;
};

/// Everything about a result under its name in JSON and CSV; samples_ns and samples_ts are arrays, unknown values null.
/// `share_of_peak`: of the arithmetic's peak (prompt) or the read bandwidth (generation), 0 to 1; NaN: not known.
OrderedJson make_record(const EngineInfo& info, const EngineSettings& settings, const Measured& measured,
                        double share_of_peak);

/// What bounds a test, measured now: the peak of its arithmetic in operations a second (prompt), or the bandwidth in
/// bytes a second of reading as many bytes as a generated token does; NaN for tests that do both.
double limit_of(Limits& limits, const EngineInfo& info, const Measured& measured);
/// The median over the runs of what each did a second as a share of its limit: limits [samples], each measured beside
/// its run, because a machine's bandwidth changes by a tenth within minutes.
double share_of(const Measured& measured, const std::vector<double>& limits);

}  // namespace fastkv::bench
