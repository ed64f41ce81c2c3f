// A bounds-checked reader of little-endian values for the GGUF parser.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "core/check.hpp"

namespace fastkv {

/// Walks `bytes` from the front; every read that would leave them throws Error bad_file with file, offset and purpose.
class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  std::uint64_t offset() const { return offset_; }
  std::uint64_t left() const { return bytes_.size() - offset_; }

  /// The next sizeof(T) bytes; `what` names them in the error.
  template <class T>
  T read(std::string_view what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  /// A string of u64 length, as a view into the file.
  std::string_view read_string(std::string_view what) {
    const auto length = read<std::uint64_t>(what);
    need(length, what);
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data() + offset_), length);
    offset_ += length;
    return text;
  }

  void skip(std::uint64_t n, std::string_view what) {
    need(n, what);
    offset_ += n;
  }

 private:
  void need(std::uint64_t n, std::string_view what) const {
    if (n > left()) {
      fail(ErrorCode::bad_file, file_, ": byte ", offset_, ": expected ", n, " bytes of ", what, ", found ", left(),
           " before the end of the file");
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::uint64_t offset_ = 0;
};

}  // namespace fastkv
