// How far an arithmetic's rounding moves a model's results: measured by an oracle that rounds at random.
//
// A bound in closed form (unit roundoff × length × magnitude, layer after layer) grows with every layer and soon allows
// anything. Instead the oracle is run again with an error of the arithmetic's own size, drawn at random, at each place
// where that arithmetic rounds: inputs and weights of linear layers, q, k, v, probabilities, cache rows. The deviations
// are close to normal with the spread σ measured here; over the some 10^5 values compared in these tests 5σ may occur,
// and σ, measured on few runs whose values depend on one another, may be half of the true one: the bound is 10σ for a
// value and 3σ for the root mean square of many. A wrong row, position or weight moves results by the spread of the
// logits themselves.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "reference/oracle.hpp"

namespace fastkv::test {

struct Spread {
  double logits = 0;          ///< σ of a logit, worst of prefill and decode steps
  std::vector<double> score;  ///< [N] σ of ln g and ln z (what rows are ranked by); 0: no scores
  double filter = 0;          ///< σ of GemFilter's v
  std::vector<double> row;    ///< [N] σ of an element of a cached K or V row
};

inline constexpr double kWorst = 10;  ///< σ allowed for one value
inline constexpr double kMean = 3;    ///< σ allowed for a root mean square

/// Deviations from `exact`, which was run with `run` (and no rounding), when rounding like `rounding`.
Spread measure_spread(const Oracle& oracle, std::span<const std::int32_t> prompt, const OracleRun& run,
                      const OracleResult& exact, const Rounding& rounding, int runs);

/// Root mean square of the differences.
template <class A, class B>
double rms_difference(const A& a, const B& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
  return a.size() == 0 ? 0 : std::sqrt(sum / double(a.size()));
}

/// Largest difference; infinity if lengths differ or a value is not finite.
template <class A, class B>
double max_difference(const A& a, const B& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(double(a[i]) - double(b[i]));
    if (!std::isfinite(difference)) return INFINITY;
    most = std::max(most, difference);
  }
  return most;
}

/// Largest |ln a − ln b| of positive scores; values below `floor` of the row's largest are compared with that floor
/// added, since float32 sums lose them.
template <class A, class B>
double max_log_difference(const A& a, const B& b, double floor = 1e-12) {
  if (a.size() != b.size()) return INFINITY;
  double top = 0, most = 0;
  for (double v : b) top = std::max(top, v);
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = std::log((double(a[i]) + floor * top) / (double(b[i]) + floor * top));
    if (!std::isfinite(x)) return INFINITY;
    most = std::max(most, std::fabs(x));
  }
  return most;
}

}  // namespace fastkv::test
