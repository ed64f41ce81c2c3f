// compare A.json B.json…: ratios of equal tests, from this program's results and llama-bench's.
#pragma once

#include <string>
#include <vector>

#include "bench/statistics.hpp"
#include "core/json.hpp"

namespace fastkv::bench {

/// One test of one file; samples of records that agree in everything (alternating runs) are put together.
struct Measurement {
  OrderedJson record;           ///< of the first of them
  std::vector<double> samples;  ///< tokens per second
};

/// The records of a JSON array, of one object, or of JSON lines, in order. Throws Error io, bad_file.
std::vector<Measurement> read_measurements(const std::string& path);

struct Comparison {
  const Measurement* a;
  const Measurement* b;
  Spread ratio;  ///< b over a
};

/// Each of `b` with the one of `a` that has its model file, test, threads and cache types; of several, the one that
/// agrees in most of method, its parameters, arithmetic and instruction set. Without one: left out.
std::vector<Comparison> compare(const std::vector<Measurement>& a, const std::vector<Measurement>& b);

int run_compare(int argc, const char* const* argv);

}  // namespace fastkv::bench
