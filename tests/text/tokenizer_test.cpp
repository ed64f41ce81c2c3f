// Byte-level BPE and what all tokenizers share: special tokens, errors, ends of generation, long texts.
#include "random_text.hpp"
#include "text/byte_level.hpp"
#include "vocabularies.hpp"

namespace fastkv::test {

namespace {

using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kEot = 256, kTool = 257, kFirstMerge = 258;

/// Ids 0…255: the bytes; then <|eot_id|> (control), <tool> (user-defined) and the results of `merges`.
VocabData small_bpe(const std::vector<std::string>& merges) {
  VocabData vocab;
  vocab.model = "gpt2";
  vocab.pre = "llama-bpe";
  vocab.source = "small";
  for (int byte = 0; byte < 256; ++byte) vocab.tokens.push_back(byte_to_character(static_cast<std::uint8_t>(byte)));
  vocab.types.assign(256, TokenType::normal);
  vocab.tokens.insert(vocab.tokens.end(), {"<|eot_id|>", "<tool>"});
  vocab.types.insert(vocab.types.end(), {TokenType::control, TokenType::user_defined});
  for (const std::string& merge : merges) {
    std::string token = merge;
    token.erase(token.find(' '), 1);
    vocab.tokens.push_back(token);
    vocab.types.push_back(TokenType::normal);
  }
  vocab.merges = merges;
  return vocab;
}

const std::vector<std::string> kMerges = {"l l", "h e", "he ll", "hell o", "Ġ w", "a a", "aa aa"};

TEST(ByteLevelBpe, MergesByRank) {
  const Tokenizer tokenizer = tokenizer_of(small_bpe(kMerges));
  EXPECT_EQ(tokenizer.encode("hello"), Ids{kFirstMerge + 3});
  EXPECT_EQ(tokenizer.encode("hello world"), (Ids{kFirstMerge + 3, kFirstMerge + 4, 'o', 'r', 'l', 'd'}));
  EXPECT_EQ(tokenizer.encode("aaaaaaa"), (Ids{kFirstMerge + 6, kFirstMerge + 5, 'a'}));
  EXPECT_EQ(tokenizer.encode("é"), (Ids{0xC3, 0xA9}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.decode(Ids{0xC3}), "\xC3");  // may end inside a character
}

TEST(ByteLevelBpe, WholePiecesWhereMergesAreIgnored) {
  VocabData vocab = small_bpe(kMerges);
  vocab.tokens.push_back("world");  // no merge makes it
  vocab.types.push_back(TokenType::normal);
  EXPECT_EQ(tokenizer_of(vocab).encode("world").size(), 5U);
  vocab.ignore_merges = true;
  EXPECT_EQ(tokenizer_of(vocab).encode("world"), Ids{kFirstMerge + 7});
  EXPECT_EQ(tokenizer_of(vocab).encode("worlds").size(), 6U);
}

TEST(ByteLevelBpe, FilesWithoutPreTokenizerGoByTheirTokens) {
  VocabData vocab = small_bpe(kMerges);
  const auto pieces_of_digits = [&] {
    VocabData with_digits = vocab;
    for (const std::string merge : {"1 1", "11 11"}) {
      with_digits.merges.push_back(merge);
      with_digits.tokens.push_back(std::string(merge).erase(merge.find(' '), 1));
      with_digits.types.push_back(TokenType::normal);
    }
    return tokenizer_of(with_digits).encode("1111").size();
  };
  EXPECT_EQ(pieces_of_digits(), 3U);  // 11 1 | 1: groups of three
  for (const std::string name : {"", "default"}) {
    vocab.pre = name;
    EXPECT_EQ(pieces_of_digits(), 1U) << name;  // GPT-2's
  }
  vocab.tokens[kTool] = "<|begin_of_text|>";
  EXPECT_EQ(pieces_of_digits(), 3U);  // Llama 3's
  vocab.pre = "viking";
  expect_error(ErrorCode::unsupported, "small: unsupported pre-tokenizer 'viking'", [&] { make_tokenizer(vocab); });
}

TEST(ByteLevelBpe, RoundTrip) {
  RandomText random;
  SCOPED_TRACE(random.seed());
  for (const std::string pre : {"llama-bpe", "tekken", "smollm", "gpt-2", "qwen2"}) {
    VocabData vocab = small_bpe(kMerges);
    vocab.pre = pre;
    const Tokenizer tokenizer = tokenizer_of(vocab);
    for (std::size_t length = 0; length < 150; ++length) {
      const std::string text = random.text(length);
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << pre;
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, true), true), text) << pre;
    }
  }
}

TEST(Tokenizer, SpecialTokens) {
  const Tokenizer tokenizer = tokenizer_of(small_bpe(kMerges));
  const std::string text = "a<|eot_id|><tool>b";
  EXPECT_EQ(tokenizer.encode("a<|eot_id|>b", true), (Ids{'a', kEot, 'b'}));
  // User text: the control token stays text, the user-defined one is a token all the same.
  const Ids plain = tokenizer.encode(text);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), kEot), 0);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), kTool), 1);
  EXPECT_EQ(tokenizer.decode(plain), text);
  const Ids parsed = tokenizer.encode(text, true);
  EXPECT_EQ(parsed, (Ids{'a', kEot, kTool, 'b'}));
  EXPECT_EQ(tokenizer.decode(parsed), "a<tool>b");
  EXPECT_EQ(tokenizer.decode(parsed, true), text);
  EXPECT_EQ(tokenizer.piece(kEot), "");
  EXPECT_EQ(tokenizer.piece(kEot, true), "<|eot_id|>");
}

TEST(Tokenizer, LongestSpecialTokenWins) {
  VocabData vocab = small_bpe({});
  for (const std::string token : {"<t", "<tool><tool>", "<too"}) {
    vocab.tokens.push_back(token);
    vocab.types.push_back(TokenType::user_defined);
  }
  const Tokenizer tokenizer = tokenizer_of(vocab);
  EXPECT_EQ(tokenizer.encode("<tool><tool><tool><too<t<"), (Ids{259, kTool, 260, 258, '<'}));
}

TEST(Tokenizer, RefusesBadInput) {
  const Tokenizer tokenizer = tokenizer_of(small_bpe(kMerges));
  expect_error(ErrorCode::bad_input, "text is not valid UTF-8 at byte 3", [&] { tokenizer.encode("abc\x80"); });
  expect_error(ErrorCode::bad_input, "token id -1 is outside the vocabulary of 265",
               [&] { tokenizer.decode(Ids{-1}); });
  expect_error(ErrorCode::bad_input, "token id 265", [&] { tokenizer.decode(Ids{1, 265}); });
  expect_error(ErrorCode::bad_input, "token id 265", [&] { tokenizer.piece(265); });
  const std::vector<ChatMessage> messages = {{"user", "ok"}, {"user", "\xC3"}};
  expect_error(ErrorCode::bad_input, "chat: message 1 is not valid UTF-8 at byte 0",
               [&] { tokenizer.encode_chat(messages, "chatml"); });
}

TEST(Tokenizer, RefusesMalformedVocabularies) {
  const auto expect_bad = [](const std::string& words, auto&& change) {
    VocabData vocab = small_bpe(kMerges);
    change(vocab);
    expect_error(ErrorCode::bad_file, words, [&] { make_tokenizer(vocab); });
  };
  for (const std::string merge : {"", " ", "ab", "a ", " b", "a b c", "a  b"}) {
    expect_bad("small: merge 7 is '" + merge + "', expected two tokens and a space",
               [&](VocabData& vocab) { vocab.merges.push_back(merge); });
  }
  for (const std::string merge : {"a 字", "字 a", "a b"}) {
    expect_bad("small: merge 7 '" + merge + "' has a part or a result outside the vocabulary",
               [&](VocabData& vocab) { vocab.merges.push_back(merge); });
  }
  expect_bad("0 tokens", [](VocabData& vocab) { vocab.tokens.clear(); });
  expect_bad("264 token types for 265 tokens", [](VocabData& vocab) { vocab.types.pop_back(); });
  VocabData vocab = small_bpe(kMerges);
  vocab.model = "bert";
  expect_error(ErrorCode::unsupported, "small: unsupported tokenizer model 'bert'; supported: gpt2, llama",
               [&] { make_tokenizer(vocab); });
}

TEST(Tokenizer, SpecialIdsOutsideTheVocabularyCountAsAbsent) {
  VocabData vocab = small_bpe(kMerges);
  vocab.bos = 100000;
  vocab.eos = -7;
  const Tokenizer tokenizer = tokenizer_of(vocab);
  EXPECT_EQ(tokenizer.bos(), -1);
  EXPECT_FALSE(tokenizer.add_bos());
  EXPECT_EQ(tokenizer.end_of_generation_ids(), Ids{kEot});
}

TEST(Tokenizer, EndsOfGenerationByIdAndBySpelling) {
  VocabData vocab = small_bpe(kMerges);
  vocab.tokens.insert(vocab.tokens.end(), {"</s>", "<|im_end|>"});
  vocab.types.insert(vocab.types.end(), {TokenType::normal, TokenType::normal});
  vocab.eos = 7;
  vocab.eom = 9;
  const Tokenizer tokenizer = tokenizer_of(vocab);
  // An ordinary "</s>" is markup; <|im_end|> is an end even where the file forgot to say so.
  EXPECT_EQ(tokenizer.end_of_generation_ids(), (Ids{7, 9, kEot, 266}));
  EXPECT_TRUE(tokenizer.is_end_of_generation(kEot));
  EXPECT_FALSE(tokenizer.is_end_of_generation(265));
  EXPECT_FALSE(tokenizer.is_end_of_generation(-1));
}

TEST(Tokenizer, BytesWithoutATokenArePassedOver) {
  VocabData vocab = small_bpe({});
  vocab.tokens[4] = "nothing";  // as in SmolLM2's vocabulary
  EXPECT_EQ(tokenizer_of(vocab).encode("a\x04z"), (Ids{'a', 'z'}));
}

// One long piece: minutes if merging took quadratic time.
TEST(Tokenizer, LongRunsTakeLinearithmicTime) {
  constexpr std::size_t kLength = 512'000;
  std::vector<std::string> merges;
  for (std::string run = "a"; run.size() < 64; run += run) merges.push_back(run + ' ' + run);
  const Tokenizer bpe = tokenizer_of(small_bpe(merges));
  EXPECT_EQ(bpe.encode(std::string(kLength, 'a')).size(), kLength / 64);

  VocabData vocab = small_sentence_piece({"▁", "a", "aa", "aaaa", "▁▁", "▁▁▁▁"});
  vocab.add_space_prefix = false;
  const Tokenizer sentence_piece = tokenizer_of(vocab);
  EXPECT_EQ(sentence_piece.encode(std::string(kLength, 'a')).size(), kLength / 4);
  EXPECT_EQ(sentence_piece.encode(std::string(kLength, ' ')).size(), kLength / 4);
  EXPECT_EQ(sentence_piece.encode(std::string(kLength, '<'), true).size(), kLength);
}

}  // namespace

}  // namespace fastkv::test
