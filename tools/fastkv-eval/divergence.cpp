// KL divergence of softmax distributions.
#include "fastkv-eval/divergence.hpp"

#include <algorithm>
#include <cmath>

namespace fastkv::tools {

Divergence divergence(std::span<const float> base, std::span<const float> other) {
  const auto best = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
  const auto log_sum = [](std::span<const float> x, double top) {
    double sum = 0;
    for (float v : x) sum += std::exp(v - top);
    return top + std::log(sum);
  };
  const auto p_best = best(base), q_best = best(other);
  const double p_sum = log_sum(base, base[static_cast<std::size_t>(p_best)]);
  const double q_sum = log_sum(other, other[static_cast<std::size_t>(q_best)]);
  double kl = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    const double p = base[i] - p_sum;
    kl += std::exp(p) * (p - (other[i] - q_sum));
  }
  return {kl, p_best == q_best};
}

}  // namespace fastkv::tools
