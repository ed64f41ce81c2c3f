// Sentences of a file, and made-up ones.
#include "fastkv-eval/synthetic/haystack.hpp"

#include <cstring>

#include "fastkv-eval/synthetic/text.hpp"
#include "fastkv-eval/synthetic/words.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

namespace {

/// Sentences to be: @T stands for a thing, @P a place, @W a person, @A an adjective, @V a verb.
const std::vector<std::string>& patterns() {
  static const std::vector<std::string> list = {
      "The @W @V a @A @T near the @P.",
      "Nobody in the @P had seen the @A @T since the winter.",
      "Every evening a @A @W walked from the @P to the @P.",
      "The @W and the @W talked about a @T until the lamps went out.",
      "There was a @A @T on the table, and beside it lay a @T.",
      "It rained over the @P, so the @W stayed at home and @V the @T.",
      "A @A path led past the @P down to the @P.",
      "Years ago the @W @V a @T and gave it to a @A @W.",
      "In spring the @P smelled of hay, and in autumn it smelled of smoke.",
      "The @T belonged to a @W who lived behind the @P.",
      "Some said that the @A @P was older than the @P, but no @W could prove it.",
      "While the @W slept, a @A @T rolled slowly across the floor.",
      "The @W never @V the @T without a @A smile.",
      "Children from the @P @V a @T and hid it under a @A @T.",
      "Before noon the @W had @V the @T, the @T and the @A @T.",
      "The road to the @P was long, and the @W grew weary of it."};
  return list;
}

const std::vector<std::string>& list_of(char mark) {
  switch (mark) {
    case 'T':
      return things();
    case 'P':
      return places();
    case 'W':
      return people();
    case 'A':
      return adjectives();
    default:
      return verbs();
  }
}

}  // namespace

std::string made_up_sentence(Random& random) {
  const std::string& pattern = random.pick(patterns());
  std::string sentence;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '@') {
      sentence += pattern[i];
      continue;
    }
    const std::string& word = random.pick(list_of(pattern[++i]));
    if (std::strchr("aeiou", word.front()) && (sentence == "A " || sentence.ends_with(" a ")))
      sentence.back() = 'n', sentence += ' ';
    sentence += word;
  }
  return sentence;
}

Haystack::Haystack(const std::string& path) : sentences_(split_sentences(read_text(path))) {
  if (sentences_.empty()) throw Error(ErrorCode::bad_file, path + ": no text");
}

std::vector<std::string> Haystack::passage(Random random, std::size_t count) const {
  std::vector<std::string> sentences;
  sentences.reserve(count);
  std::size_t at = sentences_.empty() ? 0 : random.below(sentences_.size());
  while (sentences.size() < count) {
    sentences.push_back(sentences_.empty() ? made_up_sentence(random) : sentences_[at++ % sentences_.size()]);
  }
  return sentences;
}

}  // namespace fastkv::tools
