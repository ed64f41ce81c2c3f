// SentencePiece-style BPE: characters merged by score over whole stretches of text, bytes for unknown characters.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <unordered_map>

#include "core/check.hpp"
#include "text/file_merges.hpp"
#include "text/merges.hpp"
#include "text/text_model.hpp"
#include "text/utf8.hpp"
#include "text/vocabulary.hpp"

namespace fastkv {

namespace {

constexpr std::string_view kSpaceMark = "\u2581";
constexpr std::size_t kLongestToken = 1024;  // bytes; merging tables take quadratic time in it

class SentencePiece final : public TextModel {
 public:
  explicit SentencePiece(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    byte_tokens_.fill(kNoSymbol);
    for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
      const std::string& bytes = vocabulary_.bytes(id);
      if (vocabulary_.type(id) == TokenType::byte) byte_tokens_[static_cast<unsigned char>(bytes[0])] = id;
      if (!takes_part(id)) continue;
      check(bytes.size() <= kLongestToken, ErrorCode::unsupported, source(), ": token ", id, " has ", bytes.size(),
            " bytes, at most ", kLongestToken, " are supported");
      if (bytes.size() == utf8_length(bytes[0])) characters_.try_emplace(bytes, id);
      const std::size_t word = bytes.find_first_not_of(' ');
      if (word != std::string::npos && bytes.find(' ', word) != std::string::npos) space_ends_stretch_ = false;
    }
    if (vocabulary_.data().merges.empty()) {
      merge_by_score();
    } else {
      merges_ = read_file_merges(vocabulary_);
    }
  }

  void encode(std::string_view text, FragmentStart start, std::vector<std::int32_t>& ids) const override {
    const bool prefix = vocabulary_.data().add_space_prefix && !text.empty() &&
                        (start == FragmentStart::text || (start == FragmentStart::after_control && text[0] != ' '));
    std::string spaced;  // only when the text must change: ▁ means a space
    if (prefix || text.find(kSpaceMark) != std::string_view::npos) {
      if (prefix) spaced = " ";
      spaced += replace_all(text, kSpaceMark, " ");
      text = spaced;
    }
    SymbolList symbols;
    while (!text.empty()) {
      const std::size_t end = stretch_end(text);
      merge_stretch(text.substr(0, end), symbols, ids);
      text.remove_prefix(end);
    }
  }

 private:
  const std::string& source() const { return vocabulary_.data().source; }

  /// Tokens that text may become: not control tokens (SentencePiece never produces these from text), not byte tokens.
  bool takes_part(std::int32_t id) const {
    return !vocabulary_.is_control(id) && vocabulary_.type(id) != TokenType::byte && !vocabulary_.bytes(id).empty();
  }

  /// Any two symbols merge whose concatenation is a token; the better the token's score, the earlier.
  void merge_by_score() {
    const std::vector<float>& scores = vocabulary_.data().scores;
    check(scores.size() == static_cast<std::size_t>(vocabulary_.size()), ErrorCode::bad_file, source(), ": ",
          scores.size(), " scores for ", vocabulary_.size(), " tokens");
    check(std::none_of(scores.begin(), scores.end(), [](float s) { return std::isnan(s); }), ErrorCode::bad_file,
          source(), ": a token's score is not a number");
    std::vector<float> order = scores;  // best first; a rank is a place in it
    std::sort(order.begin(), order.end(), std::greater<>());
    order.erase(std::unique(order.begin(), order.end()), order.end());
    for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
      const std::string_view bytes = vocabulary_.bytes(id);
      if (!takes_part(id) || vocabulary_.find(bytes) != id || find_invalid_utf8(bytes) != std::string_view::npos)
        continue;
      const float score = scores[static_cast<std::size_t>(id)];
      const auto rank = std::lower_bound(order.begin(), order.end(), score, std::greater<>()) - order.begin();
      for (std::size_t cut = utf8_length(bytes[0]); cut < bytes.size(); cut += utf8_length(bytes[cut])) {
        const std::int32_t left = symbol_of(bytes.substr(0, cut)), right = symbol_of(bytes.substr(cut));
        if (left >= 0 && right >= 0) merges_.insert(left, right, {static_cast<std::uint32_t>(rank), id});
      }
    }
  }

  /// The token `bytes`; a number beyond the vocabulary for a character that is only part of tokens; else kNoSymbol.
  std::int32_t symbol_of(std::string_view bytes) {
    const std::int32_t id = vocabulary_.find(bytes);
    if (id >= 0 && takes_part(id)) return id;
    if (bytes.size() != utf8_length(bytes[0])) return kNoSymbol;
    const auto next = vocabulary_.size() + static_cast<std::int32_t>(extra_characters_);
    const auto [it, added] = characters_.try_emplace(std::string(bytes), next);
    extra_characters_ += added ? 1 : 0;
    return it->second;
  }

  /// Merging the whole text at once is the definition. Where no token goes on over a space after another character,
  /// no merge crosses the start of a word, and merging word by word gives the same ids out of the cache.
  std::size_t stretch_end(std::string_view text) const {
    if (!space_ends_stretch_) return text.size();
    const std::size_t word = text.find_first_not_of(' ');
    return word == std::string_view::npos ? text.size() : std::min(text.find(' ', word), text.size());
  }

  void merge_stretch(std::string_view text, SymbolList& symbols, std::vector<std::int32_t>& ids) const {
    symbols.reset(text.size());
    std::string key;
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t length = utf8_length(text[i]);
      key.assign(text, i, length);
      const auto it = characters_.find(key);
      symbols.append(i, i + length, it == characters_.end() ? kNoSymbol : it->second);
      i += length;
    }
    symbols.merge(merges_);
    bool unknown = false;
    symbols.for_each([&](std::size_t begin, std::size_t end, std::int32_t symbol) {
      if (symbol >= 0 && symbol < vocabulary_.size()) {
        ids.push_back(symbol);
        unknown = false;
      } else {
        unknown = append_bytes(text.substr(begin, end - begin), unknown, ids);
      }
    });
  }

  /// Byte tokens of a character, or the unknown token, once for several such characters. Returns whether the latter.
  bool append_bytes(std::string_view character, bool after_unknown, std::vector<std::int32_t>& ids) const {
    const auto token = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
    if (std::all_of(character.begin(), character.end(), [&](char byte) { return token(byte) >= 0; })) {
      for (const char byte : character) ids.push_back(token(byte));
      return false;
    }
    const std::int32_t unknown = vocabulary_.data().unknown;
    check(unknown >= 0, ErrorCode::bad_input, source(), ": the vocabulary has no token for '", character, "'");
    if (!after_unknown) ids.push_back(unknown);
    return true;
  }

  const Vocabulary& vocabulary_;
  MergeTable merges_;
  std::unordered_map<std::string, std::int32_t>
      characters_;  // one character → token, or a number beyond the vocabulary
  std::size_t extra_characters_ = 0;
  std::array<std::int32_t, 256> byte_tokens_{};  // kNoSymbol: none
  bool space_ends_stretch_ = true;
};

}  // namespace

std::unique_ptr<TextModel> make_sentence_piece(const Vocabulary& vocabulary) {
  return std::make_unique<SentencePiece>(vocabulary);
}

}  // namespace fastkv
