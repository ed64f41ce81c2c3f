// From the flags to token ids: document, prompt, questions, chat template.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fastkv-run/arguments.hpp"

namespace fastkv::tools {

struct Prompt {
  std::string question;  ///< heading of the answer when there are several
  std::vector<std::int32_t> ids;
  double tokenize_ms = 0;
};

/// \n \t \r \' \" \\ and \xHH become characters; other backslashes stay.
std::string unescape(const std::string& text);

/// The user turn: parts with one blank line between them; empty parts are left out, no part is changed.
std::string join_turn(const std::vector<std::string>& parts);

/// One prompt per question (one if there is none). Throws UsageError for a chat template that is missing or unknown,
/// Error io for files, bad_input for an empty prompt or text that is not UTF-8.
std::vector<Prompt> build_prompts(const PromptArguments& arguments, const Tokenizer& tokenizer);

}  // namespace fastkv::tools
