// Implements vocabulary.hpp.
#include "text/vocabulary.hpp"

#include <charconv>
#include <limits>
#include <utility>

#include "core/check.hpp"
#include "text/byte_level.hpp"
#include "text/utf8.hpp"

namespace fastkv {

namespace {

constexpr std::string_view kSpaceMark = "\u2581";  // ▁, SentencePiece's space

/// "<0x0A>" → "\n".
std::string byte_of(std::string_view text, std::int32_t id, const std::string& source) {
  unsigned value = 0;
  const bool framed = text.size() == 6 && text.starts_with("<0x") && text.ends_with('>');
  const char* end = text.data() + text.size() - 1;
  const bool hex = framed && std::from_chars(text.data() + 3, end, value, 16).ptr == end;
  check(hex, ErrorCode::bad_file, source, ": byte token ", id, " is '", text, "', expected <0x00> to <0xFF>");
  return std::string(1, static_cast<char>(value));
}

}  // namespace

Vocabulary::Vocabulary(VocabData data) : data_(std::move(data)), sentence_piece_(data_.model == "llama") {
  const std::string& source = data_.source;
  check(sentence_piece_ || data_.model == "gpt2", ErrorCode::unsupported, source, ": unsupported tokenizer model '",
        data_.model, "'; supported: gpt2, llama");
  const std::size_t count = data_.tokens.size();
  check(count > 0 && count <= std::numeric_limits<std::int32_t>::max() / 2, ErrorCode::bad_file, source,
        ": vocabulary of ", count, " tokens");
  check(data_.types.empty() || data_.types.size() == count, ErrorCode::bad_file, source, ": ", data_.types.size(),
        " token types for ", count, " tokens");
  types_ = data_.types.empty() ? std::vector<TokenType>(count, TokenType::normal) : data_.types;
  for (std::int32_t* id : {&data_.bos, &data_.eos, &data_.eot, &data_.eom, &data_.unknown, &data_.padding}) {
    if (*id < 0 || *id >= static_cast<std::int32_t>(count)) *id = -1;
  }

  bytes_.reserve(count);
  by_bytes_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto id = static_cast<std::int32_t>(i);
    const std::string& text = data_.tokens[i];
    const bool as_written = is_control(id) || (!sentence_piece_ && type(id) == TokenType::user_defined);
    if (sentence_piece_ && type(id) == TokenType::byte) {
      bytes_.push_back(byte_of(text, id, source));
    } else {
      bytes_.push_back(as_written ? text : to_bytes(text));
    }
  }
  for (const bool ordinary : {true, false}) {
    for (std::int32_t id = 0; id < size(); ++id) {
      if ((!is_control(id) && type(id) != TokenType::byte) == ordinary) by_bytes_.try_emplace(bytes(id), id);
    }
  }
}

std::int32_t Vocabulary::find(std::string_view bytes) const {
  const auto it = by_bytes_.find(bytes);
  return it == by_bytes_.end() ? -1 : it->second;
}

std::int32_t Vocabulary::find_spelling(std::string_view text) const {
  for (std::size_t i = 0; i < data_.tokens.size(); ++i) {
    if (data_.tokens[i] == text) return static_cast<std::int32_t>(i);
  }
  return -1;
}

std::string Vocabulary::to_bytes(std::string_view text) const {
  if (sentence_piece_) return replace_all(text, kSpaceMark, " ");
  // A token outside the byte alphabet was added to the file as plain text.
  return from_byte_level(text).value_or(std::string(text));
}

}  // namespace fastkv
