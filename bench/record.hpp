// A test's result as a flat record: llama-bench's fields first, ours after them.
#pragma once

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

/// Operations of the prompt's work per second over the peak of its arithmetic, or bytes read per generated token over
/// the bandwidth of reading as many; NaN for tests that do both. The limits are measured now.
double share_of_peak(Limits& limits, const EngineInfo& info, const Measured& measured);
/// The same for generation alone, over what loads read that do not fetch ahead: above 1 where the engine's kernels do.
double share_of_plain_read(Limits& limits, const EngineInfo& info, const Measured& measured);

}  // namespace fastkv::bench
