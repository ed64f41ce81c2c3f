// Text to token ids and back, for the vocabulary of one model file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fastkv {

/// One turn of a conversation, for chat templates. `role`: "system", "user" or "assistant".
struct ChatMessage {
  std::string role;
  std::string content;
};

/// Immutable after construction; one object may be used by many threads.
class Tokenizer {
 public:
  /// Reads the vocabulary of `path`: a GGUF of any architecture (vocabulary-only files too) or a Hugging Face
  /// tokenizer.json. Throws Error (io, bad_file; unsupported names the tokenizer model or pre-tokenizer).
  static Tokenizer from_file(const std::string& path);

  struct Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl);

  /// Token ids of `text`, which must be valid UTF-8 (Error bad_input names the byte offset otherwise). No BOS, no EOS.
  /// Control tokens written in the text ("<|eot_id|>") become ids only if `parse_special`. Linear(ithmic) time.
  std::vector<std::int32_t> encode(std::string_view text, bool parse_special = false) const;

  /// Ids of a conversation in the chat template `name` (chat_template() of the file, or one of chat_templates()), with
  /// the opening of the assistant's turn, BOS included where the template or the file wants one, never doubled.
  /// Contents are never parsed for control tokens. Throws Error (unsupported) for an unknown name.
  std::vector<std::int32_t> encode_chat(std::span<const ChatMessage> messages, std::string_view name) const;

  /// Bytes of `ids`; control tokens are left out unless `special`. May end inside a UTF-8 character.
  std::string decode(std::span<const std::int32_t> ids, bool special = false) const;

  /// Bytes of one id, for printing tokens as they come: unlike decode() it keeps the space before a first word.
  std::string piece(std::int32_t id, bool special = false) const;

  int vocab_size() const;
  bool add_bos() const;               ///< whether the file asks for a BOS before plain text
  std::int32_t bos() const;           ///< -1: none
  bool is_end_of_generation(std::int32_t id) const;  ///< eos, eot, eom by id and by well-known token texts
  std::vector<std::int32_t> end_of_generation_ids() const;

  /// The built-in template recognised in the file ("llama3", "chatml", …); empty when the file has none or an unknown
  /// one; `has_unknown_chat_template()` tells these apart.
  const std::string& chat_template() const;
  bool has_unknown_chat_template() const;
  static std::vector<std::string> chat_templates();  ///< names of all built-in templates

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace fastkv
