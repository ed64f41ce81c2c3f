// The best token of a row of logits.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace fastkv {

/// Throws Error internal if one of logits [V] is NaN or +infinity.
void check_logits(std::span<const float> logits);

/// The largest of some of the logits of a vocabulary, the lowest token among equals.
struct BestLogit {
  float logit = -std::numeric_limits<float>::infinity();
  std::int32_t token = -1;    ///< -1: none above -infinity
  std::int32_t invalid = -1;  ///< the lowest token whose logit is NaN or +infinity; -1: none
  float invalid_logit = 0;

  /// Also those that `other` has seen.
  void take(const BestLogit& other);
  /// Also the logits of the tokens from `first` on.
  void take(std::span<const float> logits, std::int32_t first);
  /// Throws Error internal if one was not valid.
  void check_valid() const;
};

/// Index of the largest of logits [V] (no NaN), the lowest one among equals. Throws Error internal if none is finite.
std::int32_t arg_max(std::span<const float> logits);

}  // namespace fastkv
