// The largest question that fits: a bracket by doubling, then by interpolation and halving in turn.
#include "fastkv-eval/synthetic/fit.hpp"

#include <algorithm>

namespace fastkv::tools {

std::optional<std::int64_t> largest_fit(std::int64_t smallest, std::int64_t target,
                                        const std::function<std::int64_t(std::int64_t size)>& tokens) {
  // tokens(low) ≤ target < tokens(high) from the second loop on
  std::int64_t low = smallest, low_tokens = tokens(low);
  if (low_tokens > target) return {};
  std::int64_t high = 2 * low + 8, high_tokens = tokens(high);
  while (high_tokens <= target) {
    low = high, low_tokens = high_tokens;
    high *= 2, high_tokens = tokens(high);
  }
  for (bool halve = false; high - low > 1; halve = !halve) {
    const std::int64_t guess = low + (target - low_tokens) * (high - low) / (high_tokens - low_tokens);
    const std::int64_t middle = halve ? (low + high) / 2 : std::clamp(guess, low + 1, high - 1);
    const std::int64_t middle_tokens = tokens(middle);
    if (middle_tokens <= target) {
      low = middle, low_tokens = middle_tokens;
    } else {
      high = middle, high_tokens = middle_tokens;
    }
  }
  return low;
}

}  // namespace fastkv::tools
