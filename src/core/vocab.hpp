// What a model file says about its vocabulary, as plain data: made by model/, read by text/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastkv {

enum class TokenType : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct VocabData {
  std::string model;                   ///< "gpt2" (byte-level BPE) or "llama" (SentencePiece-style BPE)
  std::string pre;                     ///< pre-tokenizer name: llama-bpe, tekken, smollm, gpt-2, qwen2, …; empty: not given
  std::vector<std::string> tokens;     ///< [V]
  std::vector<TokenType> types;        ///< [V], or empty: all normal
  std::vector<float> scores;           ///< [V] for "llama", else empty
  std::vector<std::string> merges;     ///< "a b", best first; with "llama" they replace the scores
  std::int32_t bos = -1, eos = -1, eot = -1, eom = -1, unknown = -1, padding = -1;
  bool add_bos = true;
  bool add_space_prefix = true;        ///< "llama" only
  bool ignore_merges = false;          ///< a whole pre-token that is in the vocabulary is one id
  std::string chat_template;           ///< Jinja source, empty when absent
  std::string source;                  ///< file name, for error messages
};

}  // namespace fastkv
