// Sums of stage times.
#include "fastkv/stats.hpp"

#include <numeric>

namespace fastkv {

double StageTimes::total() const { return std::accumulate(std::begin(ms), std::end(ms), 0.0); }

StageTimes& StageTimes::operator+=(const StageTimes& other) {
  for (int s = 0; s < kStages; ++s) ms[s] += other.ms[s];
  return *this;
}

}  // namespace fastkv
