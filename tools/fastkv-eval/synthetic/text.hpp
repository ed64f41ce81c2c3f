// Texts: read from a file, cut into sentences, put together.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fastkv::tools {

/// A whole file. Throws Error io; bad_input where it is not UTF-8.
std::string read_text(const std::string& path);

/// `text` with white space collapsed, cut behind ".", "!" and "?" at the end of a word (titles such as "Mr." aside).
std::vector<std::string> split_sentences(const std::string& text);

/// Whether a piece of text ends as a sentence does: ".", "!" or "?", then perhaps quotes, brackets, white space.
bool ends_sentence(std::string_view text);

/// The parts with `between` between them.
std::string join(const std::vector<std::string>& parts, const std::string& between);

/// "a", "a and b", "a, b and c".
std::string enumerate(const std::vector<std::string>& parts);

}  // namespace fastkv::tools
