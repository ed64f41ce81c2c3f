// Mean, spread and median of samples.
#include "bench/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fastkv::bench {

Spread spread(std::vector<double> samples) {
  Spread s;
  const double n = static_cast<double>(samples.size());
  s.mean = std::accumulate(samples.begin(), samples.end(), 0.0) / n;
  double squares = 0;
  for (double x : samples) squares += (x - s.mean) * (x - s.mean);
  if (samples.size() > 1) s.deviation = std::sqrt(squares / (n - 1));
  std::sort(samples.begin(), samples.end());
  const std::size_t middle = samples.size() / 2;
  s.median = samples.size() % 2 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
  return s;
}

Spread ratio(const Spread& a, const Spread& b) {
  Spread r;
  r.mean = a.mean / b.mean;
  r.median = a.median / b.median;
  r.deviation = r.median * std::hypot(a.deviation / a.mean, b.deviation / b.mean);
  return r;
}

}  // namespace fastkv::bench
