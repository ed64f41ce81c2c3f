// Implements chat_template.hpp. The formats are those of the templates that the models' makers publish.
#include "text/chat_template.hpp"

#include <utility>

#include "core/check.hpp"

namespace fastkv {

namespace {

/// Collects segments: add() for the template's own text, content() for the user's.
class Writer {
 public:
  Writer& add(std::string_view text) { return append(text, true); }
  Writer& content(std::string_view text) { return append(text, false); }
  std::vector<TextSegment> take() { return std::move(segments_); }

 private:
  Writer& append(std::string_view text, bool parse_special) {
    if (text.empty()) return *this;
    if (segments_.empty() || segments_.back().parse_special != parse_special) segments_.push_back({"", parse_special});
    segments_.back().text += text;
    return *this;
  }

  std::vector<TextSegment> segments_;
};

using Messages = std::span<const ChatMessage>;

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  const std::size_t begin = text.find_first_not_of(kSpace);
  return begin == text.npos ? std::string_view{} : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// The system message, or nullptr; removes it from `messages`, where only the first may be one.
const std::string* take_system(Messages& messages) {
  const std::string* content = nullptr;
  if (messages[0].role == "system") {
    content = &messages[0].content;
    messages = messages.subspan(1);
  }
  for (const ChatMessage& message : messages) {
    check(message.role != "system", ErrorCode::bad_input, "chat: a system message is expected only as the first one");
  }
  return content;
}

// Llama 3: every turn framed by header tokens, contents trimmed. The block with dates that Llama 3.1's template puts
// into the system turn is left out.
void llama3(Messages messages, const ChatContext&, Writer& out) {
  const auto header = [&](std::string_view role) {
    out.add("<|start_header_id|>").add(role).add("<|end_header_id|>\n\n");
  };
  for (const ChatMessage& message : messages) {
    header(message.role);
    out.content(trim(message.content)).add("<|eot_id|>");
  }
  header("assistant");
}

void chatml(Messages messages, const ChatContext& context, Writer& out) {
  if (messages[0].role != "system" && !context.default_system.empty()) {
    out.add("<|im_start|>system\n").content(context.default_system).add("<|im_end|>\n");
  }
  for (const ChatMessage& message : messages) {
    out.add("<|im_start|>").add(message.role).add("\n").content(message.content).add("<|im_end|>\n");
  }
  out.add("<|im_start|>assistant\n");
}

/// How the Mistral versions before 7 differ.
struct MistralStyle {
  std::string_view open, close, answer;  // around a user's turn, before an answer
  bool system_first;                     // the system text goes with the first user turn, else with the last
  bool trim_answer;
};

void mistral(Messages messages, const ChatContext& context, Writer& out, const MistralStyle& style) {
  const std::string* system = take_system(messages);
  std::size_t with_system = messages.size();
  for (std::size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role == "user" && (style.system_first || with_system == messages.size())) with_system = i;
  }
  check(system == nullptr || with_system < messages.size(), ErrorCode::bad_input,
        "chat: this template has a place for a system message only in a user's turn, found none");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string& content = messages[i].content;
    if (messages[i].role == "user") {
      out.add(style.open);
      if (system != nullptr && i == with_system) out.content(*system).add("\n\n");
      out.content(content).add(style.close);
    } else {
      out.add(style.answer).content(style.trim_answer ? trim(content) : content).add(context.eos);
    }
  }
}

void mistral_v1(Messages messages, const ChatContext& context, Writer& out) {
  mistral(messages, context, out, {" [INST] ", " [/INST]", " ", true, false});
}

void mistral_v3(Messages messages, const ChatContext& context, Writer& out) {
  mistral(messages, context, out, {"[INST] ", "[/INST]", " ", false, true});
}

void mistral_v3_tekken(Messages messages, const ChatContext& context, Writer& out) {
  mistral(messages, context, out, {"[INST]", "[/INST]", "", false, false});
}

// Version 7 gives the system text a frame of its own; `space` follows an opening token where the vocabulary is
// SentencePiece's.
void mistral_v7_with(std::string_view space, Messages messages, const ChatContext& context, Writer& out) {
  for (const ChatMessage& message : messages) {
    if (message.role == "system") {
      out.add("[SYSTEM_PROMPT]").add(space).content(message.content).add("[/SYSTEM_PROMPT]");
    } else if (message.role == "user") {
      out.add("[INST]").add(space).content(message.content).add("[/INST]");
    } else {
      out.add(space).content(message.content).add(context.eos);
    }
  }
}

void mistral_v7(Messages messages, const ChatContext& context, Writer& out) {
  mistral_v7_with(" ", messages, context, out);
}

void mistral_v7_tekken(Messages messages, const ChatContext& context, Writer& out) {
  mistral_v7_with("", messages, context, out);
}

// Llama 2: the system text inside the first user turn, a BOS before every user turn, contents trimmed.
void llama2(Messages messages, const ChatContext& context, Writer& out) {
  const std::string* system = take_system(messages);
  bool first = true;
  for (const ChatMessage& message : messages) {
    if (message.role == "user") {
      if (!first) out.add(context.bos);
      out.add("[INST] ");
      if (first && system != nullptr) out.add("<<SYS>>\n").content(*system).add("\n<</SYS>>\n\n");
      out.content(trim(message.content)).add(" [/INST]");
      first = false;
    } else {
      out.add(" ").content(trim(message.content)).add(" ").add(context.eos);
    }
  }
  check(system == nullptr || !first, ErrorCode::bad_input,
        "chat: this template has a place for a system message only in a user's turn, found none");
}

/// To add a template: its renderer above, a row here, and a substring in detect_chat_template().
struct Entry {
  std::string_view name;
  bool wants_bos;
  void (*render)(Messages, const ChatContext&, Writer&);
};

constexpr Entry kTemplates[] = {
    {"llama3", true, llama3},
    {"chatml", false, chatml},
    {"mistral-v1", true, mistral_v1},
    {"mistral-v3", true, mistral_v3},
    {"mistral-v3-tekken", true, mistral_v3_tekken},
    {"mistral-v7", true, mistral_v7},
    {"mistral-v7-tekken", true, mistral_v7_tekken},
    {"llama2", true, llama2},
};

}  // namespace

std::string detect_chat_template(std::string_view jinja) {
  const auto has = [&](std::string_view text) { return jinja.find(text) != jinja.npos; };
  if (has("<|im_start|>")) return has("<|im_sep|>") || has("<end_of_utterance>") ? "" : "chatml";  // Phi-4, SmolVLM
  if (has("[INST]")) {
    if (has("[SYSTEM_PROMPT]")) return has("[INST] ") || has("[SYSTEM_PROMPT] ") ? "mistral-v7" : "mistral-v7-tekken";
    if (has("<<SYS>>")) return "llama2";
    if (has("[AVAILABLE_TOOLS]") && !has(" [INST]")) return has("[INST] ") ? "mistral-v3" : "mistral-v3-tekken";
    return "mistral-v1";  // also the first Mistral 7B's: the same ids
  }
  if (has("<|start_header_id|>") && has("<|end_header_id|>")) return "llama3";
  return "";
}

std::string default_system_text(std::string_view jinja) {
  constexpr std::string_view kOpen = "<|im_start|>system", kClose = "<|im_end|>";
  for (std::size_t at = 0; (at = jinja.find(kOpen, at)) != jinja.npos; at += kOpen.size()) {
    std::string_view rest = jinja.substr(at + kOpen.size());
    // The line break is one character, or the two of an escape inside a Jinja string.
    const std::size_t line_break = rest.starts_with("\n") ? 1 : rest.starts_with("\\n") ? 2 : 0;
    if (line_break == 0) continue;
    rest.remove_prefix(line_break);
    const std::string_view text = rest.substr(0, rest.find(kClose));
    // A quotation mark or brace ends the literal: what follows is an expression, not a text of the template's own.
    if (!text.empty() && text.size() < rest.size() && text.find_first_of("'\"{}\\") == text.npos)
      return std::string(text);
  }
  return "";
}

RenderedChat render_chat(std::string_view name, std::span<const ChatMessage> messages, const ChatContext& context) {
  check(!messages.empty(), ErrorCode::bad_input, "chat: expected at least one message, found none");
  for (const ChatMessage& message : messages) {
    check(message.role == "system" || message.role == "user" || message.role == "assistant", ErrorCode::bad_input,
          "chat: expected the role system, user or assistant, found '", message.role, "'");
  }
  for (const Entry& entry : kTemplates) {
    if (entry.name != name) continue;
    Writer out;
    entry.render(messages, context, out);
    return {out.take(), entry.wants_bos};
  }
  std::string known;
  for (const Entry& entry : kTemplates) known += concat(known.empty() ? "" : ", ", entry.name);
  fail(ErrorCode::unsupported, "unknown chat template '", name, "'; known: ", known);
}

std::vector<std::string> chat_template_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kTemplates) names.emplace_back(entry.name);
  return names;
}

}  // namespace fastkv
