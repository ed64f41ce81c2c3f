// Text as Python's str sees it, code point by code point: what published scorers are written in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fastkv::tools {

/// The code points of UTF-8 bytes; each byte that belongs to no well-formed character becomes U+FFFD.
std::u32string code_points(std::string_view utf8);

/// str.lower() of Unicode 14, but for the capital sigma at a word's end, which becomes an ordinary small one.
std::u32string lower(std::u32string text);

/// Whether str.split() separates there.
bool is_space(char32_t c);

/// Whether `\w` matches: letters and digits. Exact in ASCII and Latin-1; elsewhere by whole blocks of punctuation,
/// symbols and combining marks.
bool is_word(char32_t c);

/// str.split(): the pieces between white space, none of them empty. They point into `text`.
std::vector<std::u32string_view> split_words(std::u32string_view text);

}  // namespace fastkv::tools
