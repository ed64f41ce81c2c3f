// Implements tokenizer_impl.hpp: special tokens cut the text, the text model does the rest.
#include "text/tokenizer_impl.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "core/check.hpp"

namespace fastkv {

namespace {

/// Tokens that end a turn or a document whatever the file's ids say: files often name only one of several.
constexpr std::array<std::string_view, 9> kEndTexts = {"<|eot_id|>",    "<|eom_id|>", "<|end_of_text|>",
                                                       "<|endoftext|>", "<|im_end|>", "<|end|>",
                                                       "<|eot|>",       "</s>",       "<end_of_turn>"};

std::vector<std::int32_t> find_end_ids(const Vocabulary& vocabulary) {
  const VocabData& data = vocabulary.data();
  std::vector<std::int32_t> ids;
  for (const std::int32_t id : {data.eos, data.eot, data.eom}) {
    if (id >= 0) ids.push_back(id);
  }
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& text = data.tokens[static_cast<std::size_t>(id)];
    if (std::find(kEndTexts.begin(), kEndTexts.end(), text) == kEndTexts.end()) continue;
    // Some files type these tokens as normal. "</s>" is also plain markup, so that one has to be a control token.
    if (text != "</s>" || vocabulary.is_control(id)) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

Tokenizer::Impl::Impl(VocabData data) : vocabulary(std::move(data)) {
  model = vocabulary.is_sentence_piece() ? make_sentence_piece(vocabulary) : make_byte_level_bpe(vocabulary);
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& bytes = vocabulary.bytes(id);
    if (bytes.empty()) continue;
    const bool fixed = vocabulary.type(id) == TokenType::user_defined;
    if (fixed) user_defined.insert(bytes, id);
    if (fixed || vocabulary.is_control(id)) special.insert(bytes, id);
  }
  end_ids = find_end_ids(vocabulary);
  chat_template = detect_chat_template(vocabulary.data().chat_template);
}

std::vector<std::int32_t> Tokenizer::Impl::encode(std::span<const TextSegment> segments, bool after_bos) const {
  std::string joined;
  if (segments.size() > 1) {
    for (const TextSegment& segment : segments) joined += segment.text;
  }
  const std::string_view text = segments.size() == 1 ? std::string_view(segments[0].text) : joined;
  constexpr std::size_t kLongest = std::numeric_limits<std::int32_t>::max() / 4;  // places are 32 bits, ▁ has 3 bytes
  check(text.size() <= kLongest, ErrorCode::bad_input, "text of ", text.size(), " bytes, at most ", kLongest,
        " are supported");

  std::vector<std::int32_t> ids;
  FragmentStart start = after_bos ? FragmentStart::after_control : FragmentStart::text;
  std::size_t fragment = 0;  // start of the text not yet encoded
  const auto flush = [&](std::size_t end) {
    if (end > fragment) model->encode(text.substr(fragment, end - fragment), start, ids);
  };
  std::size_t at = 0, segment_end = 0;
  for (const TextSegment& segment : segments) {
    segment_end += segment.text.size();
    if (!segment.parse_special && user_defined.empty()) at = std::max(at, segment_end);
    while (at < segment_end) {
      TokenTrie::Match match = user_defined.match(text.substr(at));
      if (segment.parse_special) {
        const TokenTrie::Match own = special.match(text.substr(at, segment_end - at));
        if (own.length > match.length) match = own;
      }
      if (match.id < 0) {
        ++at;
        continue;
      }
      flush(at);
      ids.push_back(match.id);
      start = vocabulary.is_control(match.id) ? FragmentStart::after_control : FragmentStart::after_user_defined;
      at = fragment = at + match.length;
    }
  }
  flush(text.size());
  return ids;
}

std::shared_ptr<const Tokenizer::Impl> make_tokenizer(VocabData data) {
  return std::make_shared<const Tokenizer::Impl>(std::move(data));
}

}  // namespace fastkv
