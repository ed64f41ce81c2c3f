// What a Tokenizer holds: vocabulary, text model, special tokens and chat template of one file.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fastkv/tokenizer.hpp"
#include "text/chat_template.hpp"
#include "text/text_model.hpp"
#include "text/token_trie.hpp"
#include "text/vocabulary.hpp"

namespace fastkv {

struct Tokenizer::Impl {
  explicit Impl(VocabData data);

  /// Ids of the segments' texts taken as one text (valid UTF-8). A control token is one only if all of it lies in one
  /// segment with `parse_special`; user-defined tokens are found anywhere. `after_bos`: a BOS comes before the text.
  std::vector<std::int32_t> encode(std::span<const TextSegment> segments, bool after_bos) const;

  Vocabulary vocabulary;
  std::unique_ptr<TextModel> model;
  TokenTrie user_defined, special;    // special: user-defined and control tokens
  std::vector<std::int32_t> end_ids;  // sorted
  std::string chat_template;          // built-in name; empty: none or unknown
};

/// Throws Error (bad_file, unsupported).
std::shared_ptr<const Tokenizer::Impl> make_tokenizer(VocabData data);

}  // namespace fastkv
