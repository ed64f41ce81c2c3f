// A text of the user's as windows of tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/cli.hpp"
#include "fastkv/tokenizer.hpp"

namespace fastkv::tools {

using Tokens = std::vector<std::int32_t>;

/// -f.
struct TextFlags {
  std::string file;
  void declare(CommandLine& command);
  void check() const;
};

/// Windows of `length` tokens of a text file ("-": stdin), the first ones, `limit` at most (0: all); each begins
/// `stride` tokens after the one before it, and with a BOS in place of its first token where the file asks for one, as
/// llama-perplexity does. A rest shorter than a window is left out. Throws Error io, bad_input (not UTF-8, fewer tokens
/// than a window).
std::vector<Tokens> read_windows(const std::string& path, std::int64_t length, std::int64_t stride, std::int64_t limit,
                                 const Tokenizer& tokenizer);

}  // namespace fastkv::tools
