// Cutting of LongBench's prompts.
#include "fastkv-eval/longbench/prompts.hpp"

#include <algorithm>
#include <span>

#include "common/chat.hpp"
#include "common/format.hpp"
#include "common/output.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

namespace {

/// Text of ids, without what is left of characters that the cut went through.
std::string whole_characters(const Tokenizer& tokenizer, std::span<const std::int32_t> ids) {
  std::string bytes = tokenizer.decode(ids);
  const auto first =
      std::find_if(bytes.begin(), bytes.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  bytes.erase(bytes.begin(), first);
  return Utf8Stream().push(bytes);
}

}  // namespace

Prompt prompt_of(const Tokenizer& tokenizer, const std::string& chat_template, const std::string& text,
                 std::int64_t text_limit, std::int64_t limit) {
  const std::vector<std::int32_t> whole = encode_turn(tokenizer, "", {}, text);
  const auto size = [](const std::vector<std::int32_t>& ids) { return static_cast<std::int64_t>(ids.size()); };
  Prompt prompt;
  prompt.cut = size(whole) > text_limit;
  if (!prompt.cut) {
    prompt.ids = chat_template.empty() ? whole : encode_turn(tokenizer, chat_template, {}, text);
    if (size(prompt.ids) <= limit) return prompt;
    prompt.cut = true;
    text_limit = size(whole) - 1;
  }
  for (;;) {
    const auto half = static_cast<std::size_t>(text_limit / 2);
    const std::string ends = whole_characters(tokenizer, std::span(whole).first(half)) +
                             whole_characters(tokenizer, std::span(whole).last(half));
    prompt.ids = encode_turn(tokenizer, chat_template, {}, ends);
    const std::int64_t over = size(prompt.ids) - limit;
    if (over <= 0) return prompt;
    if (half == 0) {
      throw Error(ErrorCode::context_exceeded,
                  format("a prompt of at most %lld tokens holds no text in this chat template: raise -c",
                         static_cast<long long>(limit)));
    }
    text_limit = std::max<std::int64_t>(0, text_limit - std::max<std::int64_t>(2, over));
  }
}

}  // namespace fastkv::tools
