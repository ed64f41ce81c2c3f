// UTF-8: validation of untrusted text, and the few steps over valid text that the tokenizers need.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fastkv {

/// Byte offset of the first ill-formed sequence of `text` (RFC 3629: no overlong forms, no surrogates, at most
/// U+10FFFF), or npos when all of it is valid.
std::size_t find_invalid_utf8(std::string_view text);

/// Throws Error (bad_input) "`what` is not valid UTF-8 at byte N" unless `text` is valid.
void check_utf8(std::string_view text, std::string_view what);

/// Bytes of the character that starts with `lead`; 1 for a byte that starts none.
constexpr std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// Appends `code_point` (at most U+07FF) to `out`.
void append_utf8(unsigned code_point, std::string& out);

/// Copies `text` with every `from` replaced by `to`; `from` is not empty.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace fastkv
