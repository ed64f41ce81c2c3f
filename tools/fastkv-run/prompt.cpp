// From the flags to token ids.
#include "fastkv-run/prompt.hpp"

#include <chrono>

#include "common/input.hpp"
#include "fastkv/error.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::string unescape(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[i + 1];
    if (c == 'n') {
      out += '\n';
    } else if (c == 't') {
      out += '\t';
    } else if (c == 'r') {
      out += '\r';
    } else if (c == '"' || c == '\'' || c == '\\') {
      out += c;
    } else if (c == 'x' && i + 3 < text.size() && hex_digit(text[i + 2]) >= 0 && hex_digit(text[i + 3]) >= 0) {
      out += static_cast<char>(hex_digit(text[i + 2]) * 16 + hex_digit(text[i + 3]));
      i += 2;
    } else {
      out += '\\';
      continue;
    }
    ++i;
  }
  return out;
}

std::string join_turn(const std::vector<std::string>& parts) {
  std::string turn;
  for (const std::string& part : parts) {
    if (part.empty()) continue;
    if (!turn.empty()) turn += turn.back() == '\n' ? "\n" : "\n\n";
    turn += part;
  }
  return turn;
}

std::vector<Prompt> build_prompts(const PromptArguments& arguments, const Tokenizer& tokenizer) {
  if (arguments.tokens) {
    Prompt prompt;
    prompt.ids = read_token_ids(*arguments.tokens);
    if (prompt.ids.empty()) throw Error(ErrorCode::bad_input, *arguments.tokens + ": the prompt is empty");
    return {prompt};
  }
  const std::string chat = arguments.chat.resolve(tokenizer, arguments.system ? "--system-prompt" : nullptr);
  const auto typed = [&](const std::string& text) { return arguments.escape ? unescape(text) : text; };
  const std::string document = arguments.file ? read_document(*arguments.file) : "";
  const std::string instruction = arguments.prompt ? typed(*arguments.prompt) : "";
  std::optional<std::string> system;
  if (arguments.system) system = typed(*arguments.system);
  std::vector<std::string> questions = arguments.questions;
  if (questions.empty()) questions.push_back("");

  std::vector<Prompt> prompts;
  for (const std::string& question : questions) {
    const auto start = std::chrono::steady_clock::now();
    Prompt prompt;
    prompt.question = typed(question);
    const std::string turn = join_turn({document, instruction, prompt.question});
    if (turn.empty()) throw Error(ErrorCode::bad_input, "the prompt is empty");
    prompt.ids = encode_turn(tokenizer, chat, system, turn);
    prompt.tokenize_ms = milliseconds_since(start);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace fastkv::tools
