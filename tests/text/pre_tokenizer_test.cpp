// Pre-tokenizers: known cuts, names, and pieces that cover any text in linear time.
#include "text/pre_tokenizer.hpp"

#include "random_text.hpp"
#include "text/byte_level.hpp"
#include "vocabularies.hpp"

namespace fastkv::test {

namespace {

using Pieces = std::vector<std::string>;

Pieces split(const std::string& name, const std::string& text) {
  std::vector<std::string_view> pieces;
  PreTokenizer(name, "test").split(text, pieces);
  return {pieces.begin(), pieces.end()};
}

TEST(PreTokenizer, CutsAsTheModelsDo) {
  const std::string text = "Hello  world'LL  12345 x!\n\n \tB";
  EXPECT_EQ(split("llama-bpe", text),
            (Pieces{"Hello", " ", " world", "'LL", " ", " ", "123", "45", " x", "!\n\n", " ", "\tB"}));
  EXPECT_EQ(split("qwen2", text),
            (Pieces{"Hello", " ", " world", "'LL", " ", " ", "1", "2", "3", "4", "5", " x", "!\n\n", " ", "\tB"}));
  EXPECT_EQ(split("gpt-2", text),
            (Pieces{"Hello", " ", " world", "'", "LL", " ", " 12345", " x", "!", "\n\n ", "\t", "B"}));
  EXPECT_EQ(split("smollm", text),
            (Pieces{"Hello", " ", " world", "'", "LL", "  ", "1", "2", "3", "4", "5", " x", "!", "\n\n ", "\t", "B"}));
  EXPECT_EQ(split("tekken", "camelCase HTTPServer's 42 a/b\n"),
            (Pieces{"camel", "Case", " HTTPServer", "'s", " ", "4", "2", " a", "/b", "\n"}));
}

TEST(PreTokenizer, MongolianVowelSeparatorIsNoSpace) {
  // U+180E was white space until Unicode 6.3; the regular expressions of the models' tokenizers no longer match it.
  EXPECT_EQ(split("gpt-2", "a\u180E b"), (Pieces{"a", "\u180E", " b"}));
}

TEST(PreTokenizer, KnowsAliasesAndNamesWhatItSupports) {
  for (const std::string alias : {"llama3", "llama-v3"}) EXPECT_EQ(split(alias, "12345"), (Pieces{"123", "45"}));
  EXPECT_EQ(split("default", "12345"), (Pieces{"12345"}));
  expect_error(ErrorCode::unsupported, "model.gguf: unsupported pre-tokenizer 'viking'; supported: llama-bpe, tekken, ",
               [] { PreTokenizer("viking", "model.gguf"); });
  expect_error(ErrorCode::unsupported, "unsupported pre-tokenizer ''", [] { PreTokenizer("", "model.gguf"); });
  EXPECT_FALSE(PreTokenizer::name_of("\\p{N}"));  // only a part of one
}

TEST(PreTokenizer, PiecesCoverTheText) {
  RandomText random;
  SCOPED_TRACE(random.seed());
  for (const std::string& name : PreTokenizer::names()) {
    for (std::size_t length = 0; length < 200; ++length) {
      const std::string text = random.text(length);
      std::string joined;
      for (const std::string& piece : split(name, text)) {
        EXPECT_FALSE(piece.empty());
        joined += piece;
      }
      ASSERT_EQ(joined, text) << name;
    }
  }
}

TEST(PreTokenizer, LongRunsAreOnePieceOrMany) {
  constexpr std::size_t kLength = 400'000;  // hours if a step looked at the whole run
  for (const std::string& name : PreTokenizer::names()) {
    for (const std::string unit : {"a", "Z", " ", "\n", "7", "!", "ß", "字", "\u0301", " \n"}) {
      std::string text;
      while (text.size() < kLength) text += unit;
      for (const std::string end : {"", " x"}) {
        std::vector<std::string_view> pieces;
        const std::string whole = text + end;
        PreTokenizer(name, "test").split(whole, pieces);
        std::size_t covered = 0;
        for (const std::string_view piece : pieces) covered += piece.size();
        ASSERT_EQ(covered, whole.size()) << name << " '" << unit << "' '" << end << "'";
      }
    }
  }
}

TEST(ByteLevel, EveryByteHasOneCharacter) {
  std::string all, characters;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
    characters += byte_to_character(static_cast<std::uint8_t>(byte));
  }
  EXPECT_EQ(from_byte_level(characters), all);
  EXPECT_EQ(byte_to_character(' '), "Ġ");
  EXPECT_EQ(byte_to_character('\n'), "Ċ");
  EXPECT_EQ(byte_to_character('~'), "~");
  EXPECT_EQ(byte_to_character(0xAD), "Ń");  // the last of those that are not printable
  for (const std::string outside : {" ", "字", "a\u0144", "\xC3", "\xFF", "\u00AD"}) {
    EXPECT_EQ(from_byte_level(outside), std::nullopt) << outside;
  }
}

}  // namespace

}  // namespace fastkv::test
