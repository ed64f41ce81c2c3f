// SentencePiece-style vocabularies against the definition on strings, and its rules about spaces and bytes.
#include <algorithm>
#include <map>

#include "random_text.hpp"
#include "text/utf8.hpp"
#include "vocabularies.hpp"

namespace fastkv::test {

namespace {

using Ids = std::vector<std::int32_t>;

/// Merges adjacent strings of the whole text, the best score first, the leftmost of equals; then looks pieces up.
Ids encode_by_definition(const VocabData& vocab, const std::string& text) {
  std::map<std::string, std::int32_t> words;
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (vocab.types[id] == TokenType::normal) words.try_emplace(vocab.tokens[id], static_cast<std::int32_t>(id));
  }
  const std::string marked = replace_all((vocab.add_space_prefix ? " " : "") + text, " ", "▁");
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < marked.size(); i += utf8_length(marked[i])) {
    parts.push_back(marked.substr(i, utf8_length(marked[i])));
  }
  while (true) {
    std::size_t best = parts.size();
    float score = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto it = words.find(parts[i] + parts[i + 1]);
      if (it == words.end()) continue;
      const float found = vocab.scores[static_cast<std::size_t>(it->second)];
      if (best == parts.size() || found > score) {
        best = i;
        score = found;
      }
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) {
    if (const auto it = words.find(part); it != words.end()) {
      ids.push_back(it->second);
    } else {
      for (const char byte : part) ids.push_back(3 + static_cast<unsigned char>(byte));
    }
  }
  return ids;
}

TEST(SentencePiece, GivesWhatTheDefinitionGives) {
  RandomText random;
  SCOPED_TRACE(random.seed());
  const std::vector<std::string> letters = {"▁", "a", "b", "é", "字"};
  for (int round = 0; round < 150; ++round) {
    std::vector<std::string> words = {"▁"};
    // In some vocabularies letters are only parts of tokens; in every third one tokens go on over a space.
    for (const std::string& letter : letters) {
      if (random.below(4) != 0) words.push_back(letter);
    }
    for (int i = 0; i < 25; ++i) {
      std::string word = random.below(3) == 0 ? "▁" : "";
      for (std::uint32_t k = 0; k < 1 + random.below(3); ++k) {
        word += letters[random.below(round % 3 == 0 ? 5 : 4) + (round % 3 == 0 ? 0 : 1)];
      }
      words.push_back(word);
    }
    VocabData vocab = small_sentence_piece(words);
    for (std::size_t id = 259; id < vocab.scores.size(); ++id) vocab.scores[id] = -static_cast<float>(random.below(12));
    vocab.add_space_prefix = round % 2 == 0;
    const Tokenizer tokenizer = tokenizer_of(vocab);
    for (std::uint32_t length = 1; length < 40; ++length) {
      std::string text;
      for (std::uint32_t i = 0; i < length; ++i) text += random.below(4) == 0 ? " " : letters[random.below(5)];
      ASSERT_EQ(tokenizer.encode(text), encode_by_definition(vocab, text)) << "'" << text << "' round " << round;
    }
  }
}

TEST(SentencePiece, RoundTrip) {
  RandomText random;
  SCOPED_TRACE(random.seed());
  for (const bool prefix : {true, false}) {
    VocabData vocab = small_sentence_piece({"▁", "▁▁", "a", "b", "ab", "▁a", "é"});
    vocab.add_space_prefix = prefix;
    const Tokenizer tokenizer = tokenizer_of(vocab);
    for (std::size_t length = 0; length < 200; ++length) {
      const std::string text = replace_all(random.text(length), "▁", " ");
      const Ids ids = tokenizer.encode(text);
      ASSERT_EQ(tokenizer.decode(ids), text);
      // One by one, the space before the first word stays.
      std::string pieces;
      for (const std::int32_t id : ids) pieces += tokenizer.piece(id);
      ASSERT_EQ(pieces, (prefix && !text.empty() ? " " : "") + text);
    }
  }
}

TEST(SentencePiece, SpacePrefix) {
  VocabData vocab = small_sentence_piece({"▁", "a", "▁a", "▁▁"});
  const std::int32_t space = 259, a = 260, space_a = 261, spaces = 262;
  const Tokenizer tokenizer = tokenizer_of(vocab);
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.encode("a"), Ids{space_a});
  EXPECT_EQ(tokenizer.encode(" a"), (Ids{space, space_a}));
  EXPECT_EQ(tokenizer.encode("  "), (Ids{spaces, space}));  // the leftmost of equals first
  // After a control token a space is put before the word unless there is one; not after a user-defined token.
  EXPECT_EQ(tokenizer.encode("a<s>a", true), (Ids{space_a, 1, space_a}));
  EXPECT_EQ(tokenizer.encode("a<s> a", true), (Ids{space_a, 1, space_a}));
  vocab.tokens.push_back("<tool>");
  vocab.types.push_back(TokenType::user_defined);
  vocab.scores.push_back(0);
  EXPECT_EQ(tokenizer_of(vocab).encode("a<tool>a"), (Ids{space_a, 263, a}));
  vocab.add_space_prefix = false;
  EXPECT_EQ(tokenizer_of(vocab).encode("a<s>a", true), (Ids{a, 1, a}));
}

TEST(SentencePiece, ControlTokensAreNeverMadeFromText) {
  // Two ordinary pieces spell "</s>", and the control token's score is the best of all.
  const Tokenizer tokenizer = tokenizer_of(small_sentence_piece({"</", "s>", "<", "/", "s", ">", "▁"}));
  const Ids plain = tokenizer.encode("</s>");
  EXPECT_EQ(plain, (Ids{265, 259, 260}));
  EXPECT_EQ(tokenizer.encode("</s>", true), Ids{2});
}

TEST(SentencePiece, UnknownCharactersWithoutByteTokens) {
  VocabData vocab = small_sentence_piece({"a", "▁"});
  for (TokenType& type : vocab.types) {
    if (type == TokenType::byte) type = TokenType::unused;
  }
  vocab.add_space_prefix = false;
  EXPECT_EQ(tokenizer_of(vocab).encode("aééa"), (Ids{259, 0, 259}));
  vocab.unknown = -1;
  expect_error(ErrorCode::bad_input, "small: the vocabulary has no token for 'é'",
               [&] { tokenizer_of(vocab).encode("aé"); });
}

TEST(SentencePiece, RefusesMalformedVocabularies) {
  VocabData vocab = small_sentence_piece({"a"});
  vocab.scores.pop_back();
  expect_error(ErrorCode::bad_file, "small: 259 scores for 260 tokens", [&] { make_tokenizer(vocab); });
  vocab.scores.push_back(std::numeric_limits<float>::quiet_NaN());
  expect_error(ErrorCode::bad_file, "not a number", [&] { make_tokenizer(vocab); });
  vocab = small_sentence_piece({"a"});
  vocab.tokens[5] = "<0xZZ>";
  expect_error(ErrorCode::bad_file, "byte token 5 is '<0xZZ>'", [&] { make_tokenizer(vocab); });
  vocab = small_sentence_piece({std::string(2000, 'a')});
  expect_error(ErrorCode::unsupported, "token 259 has 2000 bytes", [&] { make_tokenizer(vocab); });
  vocab = small_sentence_piece({"a\xFF", "\xFF", "\xE5\xAD"});  // not UTF-8: never made from text, still decodes
  EXPECT_EQ(tokenizer_of(vocab).decode(Ids{259, 260}), "a\xFF\xFF");
  EXPECT_EQ(tokenizer_of(vocab).encode("é").size(), 3U);
}

}  // namespace

}  // namespace fastkv::test
