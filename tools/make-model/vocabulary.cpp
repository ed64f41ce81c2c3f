// Builds byte-level BPE vocabularies (Llama 3, Tekken) and a SentencePiece-style one.
#include "make-model/vocabulary.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <span>

namespace fastkv::tools {
namespace {

enum Kind : std::int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> kinds;
  std::vector<float> scores;
  std::vector<std::string> merges;

  void add(std::string token, Kind kind) {
    tokens.push_back(std::move(token));
    kinds.push_back(kind);
  }
};

/// GPT-2's printable stand-in for a byte: itself where Latin-1 prints it, else the next code point from U+0100 on.
std::array<std::string, 256> byte_texts() {
  const auto utf8 = [](unsigned c) {
    if (c < 0x80) return std::string(1, char(c));
    return std::string{char(0xc0 | c >> 6), char(0x80 | (c & 0x3f))};
  };
  std::array<std::string, 256> texts;
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
    texts[b] = utf8(printable ? b : next++);
  }
  return texts;
}

/// Byte tokens, then a token for each merge while there is room, then fillers up to `size` tokens in all.
void add_byte_level(Vocabulary& vocab, std::size_t size) {
  const auto bytes = byte_texts();
  for (const auto& text : bytes) vocab.add(text, kNormal);
  const std::string& space = bytes[' '];
  const auto merge = [&](const std::string& left, const std::string& right) {
    if (vocab.tokens.size() >= size) return;
    vocab.merges.push_back(left + " " + right);
    vocab.add(left + right, kNormal);
  };
  constexpr std::string_view kLetters = "etaoinshrdlucmfwypvbgkjqxz";  // most frequent first
  for (const char a : kLetters) {
    for (const char b : kLetters) merge(std::string(1, a), std::string(1, b));
  }
  for (const char a : kLetters) merge(space, std::string(1, a));
  for (const char a : kLetters) {
    for (const char b : kLetters) merge(space, std::string{a, b});
  }
  for (std::size_t i = 0; vocab.tokens.size() < size; ++i) vocab.add("<filler_" + std::to_string(i) + ">", kNormal);
}

/// Control tokens after all others, in Llama 3's order; as many as the vocabulary has room for (256 in real ones).
void add_llama3(GgufWriter& writer, Vocabulary& vocab, std::size_t n_vocab) {
  const std::size_t n_control = n_vocab >= 128256 ? 256 : 16;
  const auto first = std::uint32_t(n_vocab - n_control);
  add_byte_level(vocab, first);
  for (const char* text : {"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
                           "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>",
                           "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"}) {
    vocab.add(text, kControl);
  }
  for (int i = 3; vocab.tokens.size() < n_vocab; ++i) {
    vocab.add("<|reserved_special_token_" + std::to_string(i) + "|>", kControl);
  }
  writer.add_string("tokenizer.ggml.pre", "llama-bpe");
  writer.add<std::uint32_t>("tokenizer.ggml.bos_token_id", first);
  writer.add<std::uint32_t>("tokenizer.ggml.eos_token_id", first + 9);
  writer.add<std::uint32_t>("tokenizer.ggml.eot_token_id", first + 9);
  writer.add<std::uint32_t>("tokenizer.ggml.eom_token_id", first + 8);
  writer.add_string(
      "tokenizer.chat_template",
      "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
      "{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
      "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}");
}

/// 1,000 control tokens first, as in Mistral's Tekken.
void add_tekken(GgufWriter& writer, Vocabulary& vocab, std::size_t n_vocab) {
  for (const char* text : {"<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                           "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]"}) {
    vocab.add(text, kControl);
  }
  while (vocab.tokens.size() < 1000) vocab.add("<SPECIAL_" + std::to_string(vocab.tokens.size()) + ">", kControl);
  add_byte_level(vocab, n_vocab);
  writer.add_string("tokenizer.ggml.pre", "tekken");
  writer.add<std::uint32_t>("tokenizer.ggml.bos_token_id", 1);
  writer.add<std::uint32_t>("tokenizer.ggml.eos_token_id", 2);
  writer.add<std::uint32_t>("tokenizer.ggml.unknown_token_id", 0);
}

/// Unknown, BOS, EOS, the 256 byte tokens, and pieces as far as they fit, better ones first.
void add_sentencepiece(GgufWriter& writer, Vocabulary& vocab, std::size_t n_vocab) {
  vocab.add("<unk>", kUnknown);
  vocab.add("<s>", kControl);
  vocab.add("</s>", kControl);
  for (int b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", b);
    vocab.add(text, kByte);
  }
  const std::string space = "\xe2\x96\x81";  // U+2581 stands for a space
  std::vector<std::string> pieces = {"th", space + "th", "he", space + "a", space + "t", space, "e",
                                     "t",  "a",          "o",  "i",         "n",         "h"};
  pieces.resize(std::min(pieces.size(), n_vocab - vocab.tokens.size()));
  for (const auto& piece : pieces) vocab.add(piece, kNormal);
  for (std::size_t i = 0; vocab.tokens.size() < n_vocab; ++i) vocab.add("<filler_" + std::to_string(i) + ">", kNormal);
  for (std::size_t i = 0; i < n_vocab; ++i) vocab.scores.push_back(i < 259 ? 0.0f : -float(i - 258));
  writer.add<std::uint32_t>("tokenizer.ggml.bos_token_id", 1);
  writer.add<std::uint32_t>("tokenizer.ggml.eos_token_id", 2);
  writer.add<std::uint32_t>("tokenizer.ggml.unknown_token_id", 0);
}

}  // namespace

void add_vocabulary(GgufWriter& writer, const Shape& shape) {
  Vocabulary vocab;
  const bool sentencepiece = shape.vocabulary == VocabularyKind::sentencepiece;
  writer.add_string("tokenizer.ggml.model", sentencepiece ? "llama" : "gpt2");
  switch (shape.vocabulary) {
    case VocabularyKind::llama3:
      add_llama3(writer, vocab, shape.n_vocab);
      break;
    case VocabularyKind::tekken:
      add_tekken(writer, vocab, shape.n_vocab);
      break;
    case VocabularyKind::sentencepiece:
      add_sentencepiece(writer, vocab, shape.n_vocab);
      break;
  }
  writer.add<bool>("tokenizer.ggml.add_bos_token", true);
  writer.add_strings("tokenizer.ggml.tokens", vocab.tokens);
  writer.add_array<std::int32_t>("tokenizer.ggml.token_type", vocab.kinds);
  if (sentencepiece) {
    writer.add_array<float>("tokenizer.ggml.scores", vocab.scores);
  } else {
    writer.add_strings("tokenizer.ggml.merges", vocab.merges);
  }
}

}  // namespace fastkv::tools
