// Mean, spread and median of samples.
#pragma once

#include <vector>

namespace fastkv::bench {

struct Spread {
  double mean = 0;
  double deviation = 0;  ///< of the sample, n - 1; 0 for one sample
  double median = 0;
};

/// Of at least one sample.
Spread spread(std::vector<double> samples);

/// a / b of two medians, with the deviation that both spreads give it to first order.
Spread ratio(const Spread& a, const Spread& b);

}  // namespace fastkv::bench
