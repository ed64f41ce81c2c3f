// Rows of a JSONL file: prompts and the continuations expected of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/chat.hpp"
#include "fastkv/tokenizer.hpp"

namespace fastkv::tools {

struct Row {
  std::int64_t line = 0;  ///< in the file, from 1
  std::string task;       ///< empty: the row names none
  std::vector<std::int32_t> prompt, opening, continuation;
};

/// Reads lines {"prompt", "continuation", "opening", "task", "chat"}, the last three optional; empty lines are skipped;
/// at most `limit` rows (0: all). Prompt, opening and continuation are a text or an array of ids each. A text prompt
/// becomes the user's turn of a chat template or, with "chat": false or where `chat` says none, plain text after the
/// BOS the file asks for; the answer is the opening, which is not scored, and the continuation, tokenised by itself.
/// Throws Error io and, naming the line, bad_file or bad_input; UsageError as ChatFlags::resolve.
std::vector<Row> read_rows(const std::string& path, std::int64_t limit, const ChatFlags& chat,
                           const Tokenizer& tokenizer);

}  // namespace fastkv::tools
