// Logarithms of softmax distributions, and how far apart two are.
#include "fastkv-eval/divergence.hpp"

#include <algorithm>
#include <cmath>

namespace fastkv::tools {

double log_sum_exp(std::span<const float> x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (float v : x) sum += std::exp(v - top);
  return top + std::log(sum);
}

Divergence divergence(std::span<const float> base, std::span<const float> other) {
  const auto best = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
  const auto p_best = best(base), q_best = best(other);
  const double p_sum = log_sum_exp(base), q_sum = log_sum_exp(other);
  double kl = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    const double p = base[i] - p_sum;
    kl += std::exp(p) * (p - (other[i] - q_sum));
  }
  return {kl, p_best == q_best};
}

}  // namespace fastkv::tools
