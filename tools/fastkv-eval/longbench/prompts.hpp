// LongBench's prompts as token ids, cut in the middle where they are too long.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fastkv/tokenizer.hpp"

namespace fastkv::tools {

struct Prompt {
  std::vector<std::int32_t> ids;
  bool cut = false;  ///< tokens were taken out of its middle
};

/// `text` as a user's turn of that chat template (empty: as plain text after the BOS that the file asks for) in at most
/// `limit` tokens. Longer: as LongBench, the first and the last half of `text_limit` tokens of the text alone (BOS
/// counted) become text again, without control tokens, and that is asked; `text_limit` shrinks until all of it fits
/// `limit`. So the template stays whole, and there is one BOS. Throws Error context_exceeded where nothing fits.
Prompt prompt_of(const Tokenizer& tokenizer, const std::string& chat_template, const std::string& text,
                 std::int64_t text_limit, std::int64_t limit);

}  // namespace fastkv::tools
