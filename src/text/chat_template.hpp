// Built-in chat templates: recognising one in a file's Jinja source, and rendering conversations.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fastkv/tokenizer.hpp"

namespace fastkv {

/// A stretch of a rendered prompt. Control tokens are parsed only in the template's own text, never in contents.
struct TextSegment {
  std::string text;
  bool parse_special;
};

/// What a template needs to know of the file it is used with.
struct ChatContext {
  std::string bos, eos;        ///< spelling of these tokens
  std::string default_system;  ///< said when the conversation brings no system message; empty: nothing
};

/// Name of the built-in template that `jinja` is a form of, by the substrings the formats are known by; empty: none.
std::string detect_chat_template(std::string_view jinja);

/// The system text that `jinja` (a chatml template) says by itself when the conversation brings none, as SmolLM2's and
/// Qwen's do; empty: it has none.
std::string default_system_text(std::string_view jinja);

struct RenderedChat {
  std::vector<TextSegment> segments;  ///< without the BOS at the start
  bool wants_bos;                     ///< the template starts with one
};

/// `messages` in the template `name`, with the opening of the assistant's turn. Throws Error: unsupported for an
/// unknown name, bad_input for no messages, for a role that is not system, user or assistant, and for system messages
/// elsewhere than at the start where the format has no place for them.
RenderedChat render_chat(std::string_view name, std::span<const ChatMessage> messages, const ChatContext& context);

std::vector<std::string> chat_template_names();

}  // namespace fastkv
