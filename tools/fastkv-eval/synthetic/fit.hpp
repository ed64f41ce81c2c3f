// The largest question that fits a number of tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace fastkv::tools {

/// The largest size from `smallest` on with tokens(size) ≤ target, for a number of tokens that grows about evenly;
/// nothing if not even the smallest fits. A few calls of `tokens`, on texts of at most twice the target.
std::optional<std::int64_t> largest_fit(std::int64_t smallest, std::int64_t target,
                                        const std::function<std::int64_t(std::int64_t size)>& tokens);

}  // namespace fastkv::tools
