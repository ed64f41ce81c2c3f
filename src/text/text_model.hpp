// What a tokenizer does with text that holds no special tokens; one implementation per kind of vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace fastkv {

class Vocabulary;

/// Where a fragment of text stands: SentencePiece writes a space before the first word, and tokenizers of its kind do
/// so again after a control token. After a user-defined token the text just goes on.
enum class FragmentStart { text, after_control, after_user_defined };

class TextModel {
 public:
  virtual ~TextModel() = default;
  /// Appends the ids of `text` (valid UTF-8, shorter than 2³¹ bytes) to `ids`.
  virtual void encode(std::string_view text, FragmentStart start, std::vector<std::int32_t>& ids) const = 0;
};

/// Byte-level BPE ("gpt2"): pieces by regular expression, merges inside them. Both keep a reference to `vocabulary`.
std::unique_ptr<TextModel> make_byte_level_bpe(const Vocabulary& vocabulary);

/// SentencePiece-style BPE ("llama"): merges by score, or in the order of the file's merges when it has them;
/// characters outside the vocabulary become byte tokens.
std::unique_ptr<TextModel> make_sentence_piece(const Vocabulary& vocabulary);

}  // namespace fastkv
