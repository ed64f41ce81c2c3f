// Implements include/fastkv/tokenizer.hpp on one vocabulary; reading files is src/tokenizer.cpp.
#include "fastkv/tokenizer.hpp"

#include <algorithm>
#include <utility>

#include "core/check.hpp"
#include "text/tokenizer_impl.hpp"
#include "text/utf8.hpp"

namespace fastkv {

namespace {

std::string spelling(const Vocabulary& vocabulary, std::int32_t id, std::string_view otherwise) {
  return std::string(id >= 0 ? std::string_view(vocabulary.bytes(id)) : otherwise);
}

void check_id(const Vocabulary& vocabulary, std::int32_t id) {
  check(id >= 0 && id < vocabulary.size(), ErrorCode::bad_input, "token id ", id, " is outside the vocabulary of ",
        vocabulary.size(), " tokens");
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  check_utf8(text, "text");
  const TextSegment segment{std::string(text), parse_special};
  return impl_->encode({&segment, 1}, false);
}

std::vector<std::int32_t> Tokenizer::encode_chat(std::span<const ChatMessage> messages, std::string_view name) const {
  for (std::size_t i = 0; i < messages.size(); ++i) check_utf8(messages[i].content, concat("chat: message ", i));
  const Vocabulary& vocabulary = impl_->vocabulary;
  const VocabData& data = vocabulary.data();
  ChatContext context{spelling(vocabulary, data.bos, "<s>"), spelling(vocabulary, data.eos, "</s>"), ""};
  if (name == impl_->chat_template) context.default_system = default_system_text(data.chat_template);
  const RenderedChat chat = render_chat(name, messages, context);
  const bool bos = data.bos >= 0 && (chat.wants_bos || data.add_bos);
  std::vector<std::int32_t> ids = impl_->encode(chat.segments, bos);
  if (bos) ids.insert(ids.begin(), data.bos);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool special) const {
  const Vocabulary& vocabulary = impl_->vocabulary;
  bool strip = vocabulary.is_sentence_piece() && vocabulary.data().add_space_prefix;
  std::string text;
  for (const std::int32_t id : ids) {
    check_id(vocabulary, id);
    if (!special && vocabulary.is_control(id)) continue;
    // The space that encode() put before the first word.
    const std::string_view bytes = vocabulary.bytes(id);
    text += strip && bytes.starts_with(' ') ? bytes.substr(1) : bytes;
    strip = false;
  }
  return text;
}

std::string Tokenizer::piece(std::int32_t id, bool special) const {
  check_id(impl_->vocabulary, id);
  return !special && impl_->vocabulary.is_control(id) ? std::string() : impl_->vocabulary.bytes(id);
}

int Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }

bool Tokenizer::add_bos() const { return impl_->vocabulary.data().add_bos && bos() >= 0; }

std::int32_t Tokenizer::bos() const { return impl_->vocabulary.data().bos; }

bool Tokenizer::is_end_of_generation(std::int32_t id) const {
  return std::binary_search(impl_->end_ids.begin(), impl_->end_ids.end(), id);
}

std::vector<std::int32_t> Tokenizer::end_of_generation_ids() const { return impl_->end_ids; }

const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }

bool Tokenizer::has_unknown_chat_template() const {
  return impl_->chat_template.empty() && !impl_->vocabulary.data().chat_template.empty();
}

std::vector<std::string> Tokenizer::chat_templates() { return chat_template_names(); }

}  // namespace fastkv
