// Asking for memory before it is needed.
#pragma once

#include <cstdint>

namespace fastkv {

/// Brings `bytes` from `from` on into the caches while the thread goes on; any address, nothing is read.
inline void fetch_lines(const void* from, std::int64_t bytes) {
  constexpr std::int64_t kLine = 64;
  for (std::int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(static_cast<const char*>(from) + i);
}

}  // namespace fastkv
