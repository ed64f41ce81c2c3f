// Needle-in-a-haystack: a sentence put into a text at a depth, and how much of it an answer repeats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fastkv/tokenizer.hpp"

namespace fastkv::tools {

/// A sentence that answers a question; `answer` is the part of it that is expected.
struct Needle {
  std::string sentence, question, answer;
};

/// Our own, about places that do not exist.
const std::vector<Needle>& own_needles();

/// A text in tokens of one model.
class Story {
 public:
  /// Throws Error bad_input where `text` is not UTF-8.
  Story(const Tokenizer& tokenizer, const std::string& text);

  std::size_t size() const { return end_.size(); }  ///< tokens
  /// Tokens before a needle at `depth` percent of the first `tokens` tokens: behind the last one before that place
  /// whose text ends a sentence; without one at the beginning; depth 100: at the end.
  std::size_t place(std::size_t tokens, int depth) const;
  /// The first `tokens` tokens with the sentence as a line of its own at place(tokens, depth).
  std::string with(const std::string& sentence, std::size_t tokens, int depth) const;

 private:
  std::string text_;
  std::vector<std::size_t> end_;     // [tokens] offset in text_ behind a token
  std::vector<bool> ends_sentence_;  // [tokens]
};

/// The share of the different words of `expected` that are in `answer`: lower case, cut at white space only, so that
/// the last word needs its full stop.
double word_recall(std::string_view answer, std::string_view expected);

}  // namespace fastkv::tools
