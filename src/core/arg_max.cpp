// Scans of a vocabulary's logits.
#include "core/arg_max.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.hpp"

namespace fastkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Both read 128,000 logits between two tokens while all threads wait: loops that compilers turn into vectors, 0.06 ms
// where branches for each logit took 0.4.

/// No logit is NaN or infinite.
bool all_below_infinity(std::span<const float> logits) {
  int others = 0;
  for (const float logit : logits) others += !(logit < kInfinity);
  return others == 0;
}

}  // namespace

void check_logits(std::span<const float> logits) {
  if (all_below_infinity(logits)) return;
  for (std::size_t i = 0; i < logits.size(); ++i)
    check(logits[i] < kInfinity, ErrorCode::internal, "the logit of token ", i, " is ", logits[i]);
}

std::int32_t arg_max(std::span<const float> logits) {
  constexpr std::size_t kLanes = 16;
  float largest[kLanes];
  std::fill_n(largest, kLanes, -kInfinity);
  std::size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      largest[lane] = logits[i + lane] > largest[lane] ? logits[i + lane] : largest[lane];
  for (; i < logits.size(); ++i) largest[0] = std::max(largest[0], logits[i]);
  const float best = *std::max_element(largest, largest + kLanes);
  check(std::isfinite(best), ErrorCode::internal, "expected a finite logit, found ", best, " as the largest of ",
        logits.size());
  return std::int32_t(std::find(logits.begin(), logits.end(), best) - logits.begin());
}

}  // namespace fastkv
