// The tokenizers that the tests use: the fixtures' files, and small ones made by hand.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fastkv/error.hpp"
#include "fastkv/tokenizer.hpp"
#include "model/gguf.hpp"
#include "model/vocab.hpp"
#include "support/fixtures.hpp"
#include "text/tokenizer_impl.hpp"
#include "text/tokenizer_json.hpp"

namespace fastkv::test {

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

inline VocabData read_vocab_of(const std::filesystem::path& path) {
  return path.extension() == ".gguf" ? read_vocab(GgufFile::open(path.string())) : read_tokenizer_json(path.string());
}

inline Tokenizer tokenizer_of(VocabData vocab) { return Tokenizer(make_tokenizer(std::move(vocab))); }

/// The ids 0…: unknown, BOS, EOS, 256 byte tokens, then `words` with descending scores.
inline VocabData small_sentence_piece(const std::vector<std::string>& words) {
  VocabData vocab;
  vocab.model = "llama";
  vocab.source = "small";
  vocab.tokens = {"<unk>", "<s>", "</s>"};
  vocab.types = {TokenType::unknown, TokenType::control, TokenType::control};
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kHex[] = "0123456789ABCDEF";
    vocab.tokens.push_back(std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">");
    vocab.types.push_back(TokenType::byte);
  }
  vocab.scores.assign(vocab.tokens.size(), 0.0F);
  for (const std::string& word : words) {
    vocab.tokens.push_back(word);
    vocab.types.push_back(TokenType::normal);
    vocab.scores.push_back(-static_cast<float>(vocab.scores.size()));
  }
  vocab.unknown = 0;
  vocab.bos = 1;
  vocab.eos = 2;
  return vocab;
}

/// Runs `call` and expects an Error with that code whose one-line message contains `words`.
template <class Call>
void expect_error(ErrorCode code, const std::string& words, Call&& call) {
  try {
    call();
    ADD_FAILURE() << "expected an error with: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

}  // namespace fastkv::test
