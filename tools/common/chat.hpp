// The chat template of a model, as the flags choose it, around a user's turn.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/cli.hpp"
#include "fastkv/tokenizer.hpp"

namespace fastkv::tools {

/// -cnv, -no-cnv, --chat-template.
class ChatFlags {
 public:
  void declare(CommandLine& command);
  /// Throws UsageError for flags that exclude each other.
  void check() const;
  /// The template's name; empty: none. `needed`: a flag that makes no sense without one. Throws UsageError for a
  /// template that is missing or unknown.
  std::string resolve(const Tokenizer& tokenizer, const char* needed = nullptr) const;
  /// Whether -no-cnv was given.
  bool refused() const { return chat_ == false; }

 private:
  std::optional<bool> chat_;
  std::optional<std::string> template_;
};

/// Ids of one user turn: in the chat template of that name, after a system turn if there is one, or (no name) as plain
/// text with the BOS that the file asks for.
std::vector<std::int32_t> encode_turn(const Tokenizer& tokenizer, const std::string& chat_template,
                                      const std::optional<std::string>& system, const std::string& turn);

}  // namespace fastkv::tools
