// The tokens of a vocabulary as the bytes they stand for, with look-up both ways. Checks what the file said.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/vocab.hpp"

namespace fastkv {

class Vocabulary {
 public:
  /// Throws Error (bad_file, unsupported). Special ids outside the vocabulary count as absent.
  explicit Vocabulary(VocabData data);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  const VocabData& data() const { return data_; }
  std::int32_t size() const { return static_cast<std::int32_t>(bytes_.size()); }
  /// Whether the model is "llama": SentencePiece-style, with spaces written as ▁ in the file.
  bool is_sentence_piece() const { return sentence_piece_; }

  /// What `id` adds to decoded text; for control tokens their spelling.
  const std::string& bytes(std::int32_t id) const { return bytes_[static_cast<std::size_t>(id)]; }
  TokenType type(std::int32_t id) const { return types_[static_cast<std::size_t>(id)]; }
  /// Control and unknown tokens: never made from plain text, left out of decoded text.
  bool is_control(std::int32_t id) const { return type(id) == TokenType::control || type(id) == TokenType::unknown; }

  /// The token that stands for `bytes`, or -1: ordinary tokens before control and byte tokens, then the lowest id.
  std::int32_t find(std::string_view bytes) const;
  /// The token spelled `text` in the file, whatever its type, or -1.
  std::int32_t find_spelling(std::string_view text) const;

  /// `text`, as merges of the file write it, in the bytes it stands for.
  std::string to_bytes(std::string_view text) const;

 private:
  VocabData data_;
  bool sentence_piece_;
  std::vector<TokenType> types_;                                 // [V]
  std::vector<std::string> bytes_;                               // [V]
  std::unordered_map<std::string_view, std::int32_t> by_bytes_;  // views into bytes_
};

}  // namespace fastkv
