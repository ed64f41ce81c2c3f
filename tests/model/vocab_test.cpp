// Vocabularies of any architecture, and broken ones.
#include "model/vocab.hpp"

#include <gtest/gtest.h>

#include "fastkv/error.hpp"
#include "model/raw_gguf.hpp"

namespace fastkv {
namespace {

using namespace test;

/// A byte-level vocabulary of another architecture, without tensors.
RawGguf other_vocab() {
  RawGguf file;
  file.set("general.architecture", text("gpt2")).set("tokenizer.ggml.model", text("gpt2"));
  file.set("tokenizer.ggml.tokens", texts({"a", "b", "ab", "<end>"})).set("tokenizer.ggml.merges", texts({"a b"}));
  file.set("tokenizer.ggml.eos_token_id", u32(3));
  return file;
}

VocabData vocab_of(const RawGguf& raw) {
  const auto bytes = raw.bytes();
  return read_vocab(GgufFile::from_memory(as_bytes(bytes), "file"));
}

/// The message of read_vocab's Error, which must be bad_file.
std::string vocab_error(const RawGguf& raw) {
  try {
    vocab_of(raw);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_file);
    return error.what();
  }
  return "";
}

TEST(Vocab, OfAnotherArchitecture) {
  const auto vocab = vocab_of(other_vocab());
  EXPECT_EQ(vocab.model, "gpt2");
  EXPECT_EQ(vocab.pre, "");
  EXPECT_EQ(vocab.tokens, (std::vector<std::string>{"a", "b", "ab", "<end>"}));
  EXPECT_EQ(vocab.merges, (std::vector<std::string>{"a b"}));
  EXPECT_TRUE(vocab.types.empty());
  EXPECT_TRUE(vocab.scores.empty());
  EXPECT_EQ(vocab.bos, -1);
  EXPECT_EQ(vocab.eos, 3);
  EXPECT_FALSE(vocab.add_bos);
  EXPECT_FALSE(vocab.ignore_merges);
  EXPECT_EQ(vocab.source, "file");
}

TEST(Vocab, SentencePieceDefaults) {
  const auto vocab = vocab_of(small_model());
  EXPECT_EQ(vocab.bos, 1);
  EXPECT_EQ(vocab.eos, 2);
  EXPECT_EQ(vocab.unknown, 0);
  EXPECT_TRUE(vocab.add_bos);
  EXPECT_TRUE(vocab.add_space_prefix);
  EXPECT_EQ(vocab.scores, (std::vector<float>{0, 0, 0, -1, -2, -3}));
  EXPECT_EQ(vocab.types[0], TokenType::unknown);
  EXPECT_EQ(vocab.types[3], TokenType::normal);
}

TEST(Vocab, WholeWordsByPreTokenizer) {
  for (const char* pre : {"llama-bpe", "tekken"}) {
    const auto vocab = vocab_of(other_vocab().set("tokenizer.ggml.pre", text(pre)));
    EXPECT_TRUE(vocab.ignore_merges) << pre;
    EXPECT_TRUE(vocab.add_bos) << pre;
  }
  auto raw =
      other_vocab().set("tokenizer.ggml.pre", text("llama-bpe")).set("tokenizer.ggml.add_bos_token", boolean(false));
  EXPECT_FALSE(vocab_of(raw).add_bos);
  for (const char* pre : {"smollm", "gpt-2", "qwen2"}) {
    EXPECT_FALSE(vocab_of(other_vocab().set("tokenizer.ggml.pre", text(pre))).ignore_merges) << pre;
  }
}

TEST(Vocab, Ids) {
  EXPECT_EQ(vocab_of(other_vocab().set("tokenizer.ggml.bos_token_id", i32(-1))).bos, -1);
  EXPECT_EQ(vocab_of(other_vocab().set("tokenizer.ggml.bos_token_id", u32(~0u))).bos, -1);
  EXPECT_EQ(vocab_of(other_vocab().set("tokenizer.ggml.eot_token_id", u32(2))).eot, 2);
  EXPECT_EQ(vocab_of(other_vocab().set("tokenizer.ggml.padding_token_id", u32(4))).padding, -1);
  EXPECT_TRUE(
      mentions(vocab_error(other_vocab().set("tokenizer.ggml.eos_token_id", u32(4))), {"eos_token_id", "4, found 4"}));
  EXPECT_TRUE(mentions(vocab_error(other_vocab().set("tokenizer.ggml.eos_token_id", i32(-2))), {"found -2"}));
}

TEST(Vocab, BrokenOnes) {
  EXPECT_TRUE(mentions(vocab_error(other_vocab().erase_key("tokenizer.ggml.model")), {"expected a tokenizer"}));
  EXPECT_TRUE(mentions(vocab_error(other_vocab().erase_key("tokenizer.ggml.tokens")), {"'tokenizer.ggml.tokens'"}));
  EXPECT_TRUE(mentions(vocab_error(other_vocab().erase_key("tokenizer.ggml.merges")), {"'tokenizer.ggml.merges'"}));
  EXPECT_TRUE(mentions(vocab_error(other_vocab().set("tokenizer.ggml.tokens", texts({}))), {"at least one token"}));
  EXPECT_TRUE(mentions(vocab_error(other_vocab().set("tokenizer.ggml.tokens", u32s({1}))), {"array of strings"}));
  EXPECT_TRUE(mentions(vocab_error(other_vocab().set("tokenizer.ggml.token_type", u32s({1, 1, 1, 9}))),
                       {"found 9 for token 3"}));
  EXPECT_TRUE(mentions(vocab_error(small_model().set("tokenizer.ggml.scores", f32s({0}))), {"scores", "6, found 1"}));
}

}  // namespace
}  // namespace fastkv
