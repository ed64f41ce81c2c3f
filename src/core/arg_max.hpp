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
  std::int32_t token = -1;  ///< -1: none above -infinity
  bool valid = true;        ///< no NaN and no +infinity among them

  /// Those of both.
  void take(const BestLogit& other) {
    if (other.logit > logit || (other.logit == logit && other.token < token)) logit = other.logit, token = other.token;
    valid = valid && other.valid;
  }
};
/// Of logits [n], those of the tokens first ... first + n - 1.
BestLogit best_logit(std::span<const float> logits, std::int32_t first);

/// Index of the largest of logits [V] (no NaN), the lowest one among equals. Throws Error internal if none is finite.
std::int32_t arg_max(std::span<const float> logits);

}  // namespace fastkv
