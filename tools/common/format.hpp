// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace fastkv::tools {

/// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

/// "1.60 GiB", "93.8 MiB", "12.0 KiB", "17 B".
std::string format_bytes(std::size_t bytes);

/// "3m12s", "42s".
std::string format_duration(double seconds);

}  // namespace fastkv::tools
