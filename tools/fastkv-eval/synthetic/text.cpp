// Texts: read, cut into sentences, put together.
#include "fastkv-eval/synthetic/text.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <sstream>
#include <string_view>
#include <utility>

#include "common/input.hpp"
#include "common/output.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

std::string read_text(const std::string& path) {
  const std::string text = read_document(path);
  if (Utf8Stream().push(text) != text) throw Error(ErrorCode::bad_input, path + ": not UTF-8");
  return text;
}

bool ends_sentence(std::string_view text) {
  static constexpr std::array<std::string_view, 13> closing = {" ", "\n", "\t", "\r",     "\"",     "'",     ")",
                                                               "]", "_",  "*",  "\u201d", "\u2019", "\u00bb"};
  const auto strip = [&] {
    return std::any_of(closing.begin(), closing.end(), [&](std::string_view mark) {
      if (!text.ends_with(mark)) return false;
      text.remove_suffix(mark.size());
      return true;
    });
  };
  while (strip()) continue;
  return !text.empty() && std::strchr(".!?", text.back());
}

std::vector<std::string> split_sentences(const std::string& text) {
  static constexpr std::array<std::string_view, 8> titles = {"Mr.", "Mrs.", "Ms.", "Dr.", "St.", "M.", "vs.", "e.g."};
  std::vector<std::string> sentences;
  std::string sentence, word;
  for (std::istringstream words(text); words >> word;) {
    sentence += (sentence.empty() ? "" : " ") + word;
    if (ends_sentence(word) && std::find(titles.begin(), titles.end(), word) == titles.end())
      sentences.push_back(std::exchange(sentence, ""));
  }
  if (!sentence.empty()) sentences.push_back(sentence);
  return sentences;
}

std::string join(const std::vector<std::string>& parts, const std::string& between) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) text += (i == 0 ? "" : between) + parts[i];
  return text;
}

std::string enumerate(const std::vector<std::string>& parts) {
  if (parts.size() < 2) return join(parts, "");
  return join({parts.begin(), parts.end() - 1}, ", ") + " and " + parts.back();
}

}  // namespace fastkv::tools
