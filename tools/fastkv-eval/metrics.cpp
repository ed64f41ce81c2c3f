// The scores of LongBench and RULER.
#include "fastkv-eval/metrics.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>

#include "fastkv-eval/python_text.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The runs of digits.
std::vector<std::string_view> numbers(std::string_view text) {
  std::vector<std::string_view> found;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t begin = i;
    while (i < text.size() && is_digit(text[i])) ++i;
    if (i > begin) found.push_back(text.substr(begin, i - begin));
  }
  return found;
}

double share_of_numbers(std::string_view prediction, std::string_view wanted) {
  const std::vector<std::string_view> found = numbers(prediction);
  if (found.empty()) return 0;
  return static_cast<double>(std::count(found.begin(), found.end(), wanted)) / static_cast<double>(found.size());
}

/// Lower case without ASCII punctuation; articles become spaces.
std::u32string normalise(std::string_view text) {
  std::u32string plain = lower(code_points(text));
  std::erase_if(plain, [](char32_t c) { return c > U' ' && c < 0x7F && (c == U'_' || !is_word(c)); });
  std::u32string out;
  for (std::size_t i = 0; i < plain.size();) {
    std::size_t end = i;
    while (end < plain.size() && is_word(plain[end])) ++end;
    const std::u32string_view word = std::u32string_view(plain).substr(i, std::max<std::size_t>(end - i, 1));
    if (word == U"a" || word == U"an" || word == U"the") {
      out += U' ';
    } else {
      out += word;
    }
    i += word.size();
  }
  return out;
}

/// Sentences as numbered words: equal words have equal numbers.
using Sentences = std::vector<std::vector<int>>;

class Words {
 public:
  Sentences sentences(const std::u32string& text) {
    Sentences out;
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find(U'.', begin), text.size());
      if (end > begin) {
        std::vector<int>& sentence = out.emplace_back();
        for (std::u32string_view word : split_words(std::u32string_view(text).substr(begin, end - begin)))
          sentence.push_back(number(word));
        if (sentence.empty()) sentence.push_back(number({}));
      }
      begin = end + 1;
    }
    return out;
  }

 private:
  int number(std::u32string_view word) {
    return numbers_.try_emplace(std::u32string(word), static_cast<int>(numbers_.size())).first->second;
  }
  std::map<std::u32string, int> numbers_;
};

/// Adds the words of one longest common subsequence: of several, the one found from the end by going back in
/// `candidate` first.
void add_common(const std::vector<int>& reference, const std::vector<int>& candidate, std::set<int>& common) {
  const std::size_t columns = candidate.size() + 1;
  std::vector<std::uint32_t> length((reference.size() + 1) * columns);  // [reference words + 1, candidate words + 1]
  for (std::size_t i = 1; i <= reference.size(); ++i) {
    for (std::size_t j = 1; j < columns; ++j) {
      length[i * columns + j] = reference[i - 1] == candidate[j - 1]
                                    ? length[(i - 1) * columns + j - 1] + 1
                                    : std::max(length[(i - 1) * columns + j], length[i * columns + j - 1]);
    }
  }
  for (std::size_t i = reference.size(), j = candidate.size(); i > 0 && j > 0;) {
    if (reference[i - 1] == candidate[j - 1]) {
      common.insert(reference[i - 1]);
      --i, --j;
    } else if (length[(i - 1) * columns + j] > length[i * columns + j - 1]) {
      --i;
    } else {
      --j;
    }
  }
}

double distinct_words(const Sentences& sentences) {
  std::set<int> words;
  for (const std::vector<int>& sentence : sentences) words.insert(sentence.begin(), sentence.end());
  return static_cast<double>(words.size());
}

std::size_t common_subsequence(std::u32string_view a, std::u32string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (char32_t c : a) {
    std::size_t diagonal = 0;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = c == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

double score(Metric metric, std::string_view prediction, std::string_view reference,
             const std::vector<std::string>& classes) {
  switch (metric) {
    case Metric::qa_f1:
      return qa_f1(prediction, reference);
    case Metric::rouge_l:
      return rouge_l(prediction, reference);
    case Metric::classification:
      return classification(prediction, reference, classes);
    case Metric::retrieval:
      return retrieval(prediction, reference);
    case Metric::count:
      return count(prediction, reference);
    case Metric::code_similarity:
      return code_similarity(prediction, reference);
  }
  return 0;
}

double qa_f1(std::string_view prediction, std::string_view reference) {
  const std::u32string predicted = normalise(prediction), expected = normalise(reference);
  std::map<std::u32string_view, int> left;
  const std::vector<std::u32string_view> words = split_words(predicted), wanted = split_words(expected);
  for (std::u32string_view word : wanted) ++left[word];
  double same = 0;
  for (std::u32string_view word : words) {
    const auto found = left.find(word);
    if (found == left.end() || found->second == 0) continue;
    --found->second;
    ++same;
  }
  if (same == 0) return 0;
  const double precision = same / static_cast<double>(words.size()), recall = same / static_cast<double>(wanted.size());
  return 2 * precision * recall / (precision + recall);
}

double rouge_l(std::string_view prediction, std::string_view reference) {
  Words words;
  const Sentences predicted = words.sentences(code_points(prediction)),
                  expected = words.sentences(code_points(reference));
  if (predicted.empty() || expected.empty()) return 0;
  std::set<int> common;
  for (const std::vector<int>& sentence : expected)
    for (const std::vector<int>& candidate : predicted) add_common(sentence, candidate, common);
  const double recall = static_cast<double>(common.size()) / distinct_words(expected),
               precision = static_cast<double>(common.size()) / distinct_words(predicted);
  return 2 * precision * recall / (precision + recall + 1e-8);
}

double classification(std::string_view prediction, std::string_view reference,
                      const std::vector<std::string>& classes) {
  std::vector<std::string_view> found;
  for (const std::string& name : classes)
    if (prediction.find(name) != prediction.npos) found.push_back(name);
  // The list is shortened while it is walked: the name that moves up into the place of one struck out is not looked at.
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::string_view name = found[i];
    if (name != reference && reference.find(name) != reference.npos)
      found.erase(std::find(found.begin(), found.end(), name));
  }
  if (std::find(found.begin(), found.end(), reference) == found.end()) return 0;
  return 1 / static_cast<double>(found.size());
}

double retrieval(std::string_view prediction, std::string_view reference) {
  constexpr std::string_view kParagraph = "Paragraph ";
  for (std::size_t at = reference.find(kParagraph); at != reference.npos; at = reference.find(kParagraph, at + 1)) {
    const std::string_view rest = reference.substr(at + kParagraph.size());
    if (!rest.empty() && is_digit(rest.front())) return share_of_numbers(prediction, numbers(rest).front());
  }
  throw Error(ErrorCode::bad_input, "expected an answer \"Paragraph N\", found \"" + std::string(reference) + "\"");
}

double count(std::string_view prediction, std::string_view reference) {
  return share_of_numbers(prediction, reference);
}

double code_similarity(std::string_view prediction, std::string_view reference) {
  prediction.remove_prefix(std::min(prediction.find_first_not_of('\n'), prediction.size()));
  std::string_view line;
  for (std::size_t begin = 0; begin <= prediction.size();) {
    const std::size_t end = std::min(prediction.find('\n', begin), prediction.size());
    line = prediction.substr(begin, end - begin);
    if (line.find_first_of("`#") == line.npos && line.find("//") == line.npos) break;
    line = {};
    begin = end + 1;
  }
  const std::u32string a = code_points(line), b = code_points(reference);
  if (a.empty() && b.empty()) return 1;
  return 2 * static_cast<double>(common_subsequence(a, b)) / static_cast<double>(a.size() + b.size());
}

std::string first_line(std::string_view prediction) {
  prediction.remove_prefix(std::min(prediction.find_first_not_of('\n'), prediction.size()));
  return std::string(prediction.substr(0, prediction.find('\n')));
}

double string_match(std::string_view prediction, const std::vector<std::string>& references) {
  if (references.empty()) return 0;
  const std::u32string text = lower(code_points(prediction));
  const auto found = std::count_if(references.begin(), references.end(), [&](const std::string& reference) {
    return text.find(lower(code_points(reference))) != text.npos;
  });
  return static_cast<double>(found) / static_cast<double>(references.size());
}

double string_match_any(std::string_view prediction, const std::vector<std::string>& references) {
  return string_match(prediction, references) > 0 ? 1 : 0;
}

}  // namespace fastkv::tools
