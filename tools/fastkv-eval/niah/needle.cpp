// Needles, the texts they are put into, the score of answers.
#include "fastkv-eval/niah/needle.hpp"

#include <algorithm>
#include <set>

#include "common/output.hpp"
#include "fastkv-eval/python_text.hpp"
#include "fastkv-eval/synthetic/text.hpp"

namespace fastkv::tools {

const std::vector<Needle>& own_needles() {
  static const std::vector<Needle> list = {
      {"The finest gift for a guest from Tolmere is a jar of plum jam tied with a blue ribbon.",
       "What is the finest gift for a guest from Tolmere?", "a jar of plum jam tied with a blue ribbon."},
      {"The quickest way from Wexcombe to the sea is to follow the old railway and cross the stone bridge.",
       "What is the quickest way from Wexcombe to the sea?", "follow the old railway and cross the stone bridge."},
      {"The safest place to hide a letter in Darrow Hall is behind the painting of the white horse.",
       "What is the safest place to hide a letter in Darrow Hall?", "behind the painting of the white horse."},
      {"The only rule of the Larkspur Club is to greet the gardener before you open the gate.",
       "What is the only rule of the Larkspur Club?", "greet the gardener before you open the gate."},
      {"The night watchman of Orlen keeps his spare key under the third flower pot by the well.",
       "Where does the night watchman of Orlen keep his spare key?", "under the third flower pot by the well."},
      {"The best way to spend a morning in Halverton is to row across the lake and buy warm bread at the mill.",
       "What is the best way to spend a morning in Halverton?", "row across the lake and buy warm bread at the mill."}};
  return list;
}

Story::Story(const Tokenizer& tokenizer, const std::string& text) {
  for (std::int32_t id : tokenizer.encode(text)) {
    const std::string piece = tokenizer.piece(id);
    text_ += piece;
    end_.push_back(text_.size());
    ends_sentence_.push_back(ends_sentence(piece));
  }
}

std::size_t Story::place(std::size_t tokens, int depth) const {
  std::size_t at = tokens * static_cast<std::size_t>(depth) / 100;
  if (depth == 100) return at;
  while (at > 0 && !ends_sentence_[at - 1]) --at;
  return at;
}

std::string Story::with(const std::string& sentence, std::size_t tokens, int depth) const {
  const std::size_t at = place(tokens, depth);
  const auto end_of = [&](std::size_t count) { return count == 0 ? 0 : end_[count - 1]; };
  // a cut that is not behind a sentence may lie inside a character
  const auto part = [&](std::size_t from, std::size_t to) { return Utf8Stream().push(text_.substr(from, to - from)); };
  return part(0, end_of(at)) + "\n" + sentence + "\n" + part(end_of(at), end_of(tokens));
}

double word_recall(std::string_view answer, std::string_view expected) {
  const auto words = [](std::string_view text) {
    const std::u32string all = lower(code_points(text));
    std::set<std::u32string> set;
    for (std::u32string_view word : split_words(all)) set.emplace(word);
    return set;
  };
  const std::set<std::u32string> said = words(answer), wanted = words(expected);
  if (wanted.empty()) return 0;
  const auto found =
      std::count_if(wanted.begin(), wanted.end(), [&](const auto& word) { return said.count(word) > 0; });
  return static_cast<double>(found) / static_cast<double>(wanted.size());
}

}  // namespace fastkv::tools
