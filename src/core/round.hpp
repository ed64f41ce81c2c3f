// Integer rounding for tiles, panels and blocks.
#pragma once

#include <cstdint>

namespace fastkv {

/// ceil(n / step) and the multiple of `step` at or above `n`, for n ≥ 0 and step ≥ 1.
constexpr std::int64_t ceil_div(std::int64_t n, std::int64_t step) { return (n + step - 1) / step; }
constexpr std::int64_t round_up(std::int64_t n, std::int64_t step) { return ceil_div(n, step) * step; }

}  // namespace fastkv
