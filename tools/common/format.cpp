// Numbers as people read them.
#include "common/format.hpp"

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace fastkv::tools {

std::string format(const char* pattern, ...) {
  va_list arguments, again;
  va_start(arguments, pattern);
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, pattern, arguments);
  va_end(arguments);
  std::string text(length > 0 ? static_cast<std::size_t>(length) : 0, '\0');
  std::vsnprintf(text.data(), text.size() + 1, pattern, again);
  va_end(again);
  return text;
}

std::string format_bytes(std::size_t bytes) {
  const double value = static_cast<double>(bytes);
  if (value >= 1024.0 * 1024 * 1024) return format("%.2f GiB", value / (1024.0 * 1024 * 1024));
  if (value >= 1024.0 * 1024) return format("%.1f MiB", value / (1024.0 * 1024));
  if (value >= 1024.0) return format("%.1f KiB", value / 1024.0);
  return format("%zu B", bytes);
}

std::string format_duration(double seconds) {
  const long whole = std::lround(seconds);
  if (whole >= 3600) return format("%ldh%02ldm", whole / 3600, whole % 3600 / 60);
  if (whole >= 60) return format("%ldm%02lds", whole / 60, whole % 60);
  return format("%lds", whole);
}

}  // namespace fastkv::tools
