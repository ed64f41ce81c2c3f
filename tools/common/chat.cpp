// The chat template of a model, as the flags choose it.
#include "common/chat.hpp"

#include <algorithm>

namespace fastkv::tools {

void ChatFlags::declare(CommandLine& command) {
  command.flag("-cnv,--conversation,!-no-cnv,!--no-conversation", chat_,
               "use the chat template, or not (default: if the model has a known one)");
  command.add("--chat-template", "NAME", "one of the built-in templates instead of the model's own",
              [this](const std::string& text) {
                const std::vector<std::string> known = Tokenizer::chat_templates();
                if (std::find(known.begin(), known.end(), text) == known.end()) throw UsageError(expected_words(known));
                template_ = text;
              });
}

void ChatFlags::check() const {
  if (refused() && template_) throw UsageError("--chat-template and --no-conversation exclude each other");
}

std::string ChatFlags::resolve(const Tokenizer& tokenizer, const char* needed) const {
  if (refused()) return "";
  if (template_) return *template_;
  if (!tokenizer.chat_template().empty()) return tokenizer.chat_template();
  if (tokenizer.has_unknown_chat_template()) {
    throw UsageError("the model's chat template is none of the built-in ones; give --chat-template NAME (" +
                     expected_words(Tokenizer::chat_templates()) + ") or -no-cnv");
  }
  if (chat_) needed = "--conversation";
  if (needed) throw UsageError(std::string(needed) + ": the model has no chat template; give --chat-template NAME");
  return "";
}

std::vector<std::int32_t> encode_turn(const Tokenizer& tokenizer, const std::string& chat_template,
                                      const std::optional<std::string>& system, const std::string& turn) {
  if (!chat_template.empty()) {
    std::vector<ChatMessage> messages;
    if (system) messages.push_back({"system", *system});
    messages.push_back({"user", turn});
    return tokenizer.encode_chat(messages, chat_template);
  }
  std::vector<std::int32_t> ids;
  if (tokenizer.add_bos() && tokenizer.bos() >= 0) ids.push_back(tokenizer.bos());
  const std::vector<std::int32_t> text = tokenizer.encode(turn);
  ids.insert(ids.end(), text.begin(), text.end());
  return ids;
}

}  // namespace fastkv::tools
