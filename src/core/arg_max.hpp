// The best token of a row of logits.
#pragma once

#include <cstdint>
#include <span>

namespace fastkv {

/// Throws Error internal if one of logits [V] is NaN or +infinity.
void check_logits(std::span<const float> logits);

/// Index of the largest of logits [V] (no NaN), the lowest one among equals. Throws Error internal if none is finite.
std::int32_t arg_max(std::span<const float> logits);

}  // namespace fastkv
