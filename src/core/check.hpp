// Throwing errors with a message built from parts, and overflow-checked sizes for untrusted input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>

#include "fastkv/error.hpp"

namespace fastkv {

/// Concatenates `parts` through operator<<.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Throws Error{code, concat(parts...)}.
template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  throw Error(code, concat(parts...));
}

/// Throws Error{code, …} unless `ok`.
template <class... Parts>
void check(bool ok, ErrorCode code, const Parts&... parts) {
  if (!ok) fail(code, parts...);
}

/// a·b and a+b; false when the result does not fit std::uint64_t.
inline bool checked_mul(std::uint64_t a, std::uint64_t b, std::uint64_t& out) { return !__builtin_mul_overflow(a, b, &out); }
inline bool checked_add(std::uint64_t a, std::uint64_t b, std::uint64_t& out) { return !__builtin_add_overflow(a, b, &out); }

}  // namespace fastkv
