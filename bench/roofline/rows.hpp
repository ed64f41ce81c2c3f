// Limits and kernels timed in alternating rounds, and the rows that come of them: a table or JSON.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/roofline/kernels.hpp"
#include "bench/roofline/limits.hpp"
#include "bench/statistics.hpp"
#include "core/json.hpp"

namespace fastkv::bench {

/// One row of the result.
struct Row {
  std::string name, shape, bound, unit;
  int threads;
  Spread rate;     // per second, in the unit's 10^9, or tokens
  double share;    // of the bound, NaN: none
  double call_us;  // of a call on a device, NaN: on the CPU, whose calls are as long as a thread's part
};

/// A limit that one round measures, per second. Of several with one bound the highest counts.
struct Limit {
  std::string name, shape;
  Bound bound;
  std::function<double()> measure;
};

/// Something that takes seconds(n) for n · calls calls, each of so much work.
struct Timed {
  std::string name, shape;
  Bound bound;
  double work;
  int calls;
  std::function<double(std::int64_t n)> seconds;
};

struct Rounds {
  int count;
  double burst_seconds;  ///< of a kernel in a round
  int threads;           ///< of the rows
  bool on_device;
};

/// Limits of each round, then kernels of each round: whatever slows a round down slows both. Throws Error cancelled
/// between two kernels.
void measure(const std::vector<Limit>& limits, const std::vector<Timed>& kernels, const Rounds& rounds,
             std::vector<Row>& rows);

std::string table_text(const std::vector<Row>& rows, const Limits& limits);
OrderedJson json_of(const Row& row, const Limits& limits);

}  // namespace fastkv::bench
