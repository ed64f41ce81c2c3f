// Generated text on its way to stdout.
#include "common/output.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/signals.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

namespace {

/// Length of the well-formed UTF-8 character at the start of `s` (Unicode 15, table 3-7); 0: malformed, -1: incomplete.
int character_length(std::string_view s) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const int length = lead >= 0xC2 && lead <= 0xDF   ? 2
                     : lead >= 0xE0 && lead <= 0xEF ? 3
                     : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                    : 0;
  for (int i = 1; i < length; ++i) {
    if (static_cast<std::size_t>(i) == s.size()) return -1;
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (byte(i) < low || byte(i) > high) return 0;
  }
  return length;
}

}  // namespace

void write_stdout(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      throw Error(ErrorCode::io, std::string("cannot write to stdout: ") + std::strerror(errno));
    } else if (stop_flag()) {
      throw Error(ErrorCode::cancelled, "stopped while writing to stdout");
    }
  }
}

void check_writable(const std::string& path) {
  if (path.empty()) return;
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const bool exists = access(path.c_str(), F_OK) == 0;
  if (access(exists ? path.c_str() : folder.c_str(), W_OK) != 0) {
    throw Error(ErrorCode::io, "cannot write " + path + ": " + std::strerror(errno));
  }
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const int length = character_length(rest);
    if (length < 0) break;
    if (length == 0) {
      out += "\xEF\xBF\xBD";
      rest.remove_prefix(1);
    } else {
      out += rest.substr(0, length);
      rest.remove_prefix(length);
    }
  }
  pending_ = std::string(rest);
  return out;
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  pending_ += text;
  std::size_t first = std::string::npos, held = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, pending_.find(stop));
    for (std::size_t n = std::min(stop.size() - 1, pending_.size()); n > held; --n) {
      if (pending_.compare(pending_.size() - n, n, stop, 0, n) == 0) held = n;
    }
  }
  stopped_ = first != std::string::npos;
  const std::string out = pending_.substr(0, stopped_ ? first : pending_.size() - held);
  pending_.erase(0, stopped_ ? std::string::npos : out.size());
  return out;
}

std::string StopFilter::finish() { return std::exchange(pending_, {}); }

}  // namespace fastkv::tools
