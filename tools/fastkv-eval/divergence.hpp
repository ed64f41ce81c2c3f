// Logarithms of distributions of the next token, and how far apart two are.
#pragma once

#include <span>

namespace fastkv::tools {

/// ln Σ exp(x), summed in double.
double log_sum_exp(std::span<const float> x);

struct Divergence {
  double kl = 0;      ///< Σ p (ln p − ln q), nats
  bool same = false;  ///< both have the same best token (of equal ones: the lowest id)
};

/// Of the distributions that two rows of logits [V] give: p of `base`, q of `other`; sums in double.
Divergence divergence(std::span<const float> base, std::span<const float> other);

}  // namespace fastkv::tools
