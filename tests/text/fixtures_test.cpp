// Every tokenizer of the fixtures gives exactly the ids that the models' own tokenizers gave.
#include <algorithm>
#include <cctype>
#include <sstream>

#include "core/json.hpp"
#include "text/utf8.hpp"
#include "vocabularies.hpp"

namespace fastkv::test {

namespace {

using Ids = std::vector<std::int32_t>;

struct Case {
  const char* folder;
  const char* file;             // in the folder; empty: the small real model
  const char* suffix;           // of small_tokens_*, mixed_tokens_*, utf8_tokens_*; empty: none
  const char* pairs;            // X of X.inp, X.out; empty: none
  bool parsed = false;          // whether the ids of `suffix` were made with control tokens parsed
  const char* ids_folder = "";  // where the ids are; empty: `folder`
  std::int32_t offset = 0;      // what to subtract from these ids
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.folder << '/' << c.file; }

constexpr Case kCases[] = {
    {"llama3", "tokenizer.json", "llama32", "llama-bpe"},
    {"tekken", "tokenizer.json", "mistral2410", ""},
    {"mistral-v3", "tokenizer.json", "mistral03", ""},
    // This file holds Mistral 7B v0.1's vocabulary, not Llama 2's: v0.3's with 768 control tokens fewer in front.
    {"llama2", "tokenizer.json", "mistral03", "", false, "mistral-v3", 768},
    {"llama2", "ggml-vocab-llama-spm.gguf", "llama2", "ggml-vocab-llama-spm.gguf"},
    {"gpt2", "tokenizer.json", "gpt2", "ggml-vocab-gpt-2.gguf", true},
    {"gpt2", "ggml-vocab-gpt-2.gguf", "gpt2", "ggml-vocab-gpt-2.gguf", true},
    {"qwen", "tokenizer.json", "", "qwen2"},
};

Ids parse_ids(std::string line, std::int32_t offset = 0) {
  std::replace(line.begin(), line.end(), ',', ' ');
  std::istringstream in(line);
  Ids ids;
  for (std::int32_t id; in >> id;) ids.push_back(id - offset);
  return ids;
}

/// The line of a text of the fixtures: in "small", \n, \t and \s stand for a newline, a tab and a space.
std::string unescape(const std::string& line) {
  return replace_all(replace_all(replace_all(line, "\\n", "\n"), "\\t", "\t"), "\\s", " ");
}

class FixtureTokens : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    folder_ = fixtures() / "tokenizers" / GetParam().folder;
    ids_folder_ = *GetParam().ids_folder == 0 ? folder_ : fixtures() / "tokenizers" / GetParam().ids_folder;
    FASTKV_REQUIRE_FILE(folder_ / GetParam().file);
  }

  static void expect_ids(const Tokenizer& tokenizer, bool parsed, const std::string& text, const Ids& expected) {
    const Ids found = tokenizer.encode(text, parsed);
    EXPECT_EQ(found, expected) << "text: " << text.substr(0, 200);
    // SentencePiece writes spaces as ▁, so that a ▁ of the text comes back as a space.
    const std::string folder = GetParam().folder;
    const bool sentence_piece = folder == "llama2" || folder == "mistral-v3";
    EXPECT_EQ(tokenizer.decode(found, parsed), sentence_piece ? replace_all(text, "▁", " ") : text);
  }

  std::filesystem::path folder_, ids_folder_;
};

TEST_P(FixtureTokens, GivesTheExpectedIds) {
  const Tokenizer tokenizer = tokenizer_of(read_vocab_of(folder_ / GetParam().file));
  const std::string suffix = GetParam().suffix;
  if (!suffix.empty()) {
    const auto texts = fixtures() / "tokenizers" / "texts";
    for (const std::string name : {"small", "mixed"}) {
      const auto lines = lines_of(read_file(texts / (name + "_input.txt")));
      const auto ids = lines_of(read_file(ids_folder_ / (name + "_tokens_" + suffix + ".txt")));
      ASSERT_EQ(lines.size(), ids.size()) << name;
      ASSERT_GE(lines.size(), 20U);
      for (std::size_t i = 0; i < lines.size(); ++i) {
        SCOPED_TRACE(name + " line " + std::to_string(i + 1));
        expect_ids(tokenizer, GetParam().parsed, name == "small" ? unescape(lines[i]) : lines[i],
                   parse_ids(ids[i], GetParam().offset));
      }
    }
    expect_ids(tokenizer, GetParam().parsed, read_file(texts / "utf8_input.txt"),
               parse_ids(read_file(ids_folder_ / ("utf8_tokens_" + suffix + ".txt")), GetParam().offset));
  }
  if (const std::string pairs = GetParam().pairs; !pairs.empty()) {
    const std::string separator = "\n__ggml_vocab_test__\n";
    const std::string text = read_file(folder_ / (pairs + ".inp"));
    const auto ids = lines_of(read_file(folder_ / (pairs + ".out")));
    ASSERT_GE(ids.size(), 40U);
    std::size_t at = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      SCOPED_TRACE(pairs + " text " + std::to_string(i + 1));
      const std::size_t end = std::min(text.find(separator, at), text.size());
      expect_ids(tokenizer, false, text.substr(at, end - at), parse_ids(ids[i]));
      at = end + separator.size();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Text, FixtureTokens, testing::ValuesIn(kCases), [](const auto& test) {
  std::string name = std::string(test.param.folder) + "_" + test.param.file;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

TEST(FixtureTokensOfGguf, SmolLM2) {
  const auto folder = fixtures() / "tokenizers";
  FASTKV_REQUIRE_FILE(folder / "smollm2");
  FASTKV_REQUIRE_FILE(smollm2());
  const Tokenizer tokenizer = tokenizer_of(read_vocab_of(smollm2()));
  for (const std::string name : {"small", "mixed", "utf8"}) {
    const std::string text = read_file(folder / "texts" / (name + "_input.txt"));
    const auto ids = Json::parse(read_file(folder / "smollm2" / (name + "_tokens.json"))).get<Ids>();
    EXPECT_EQ(tokenizer.encode(text), ids) << name;
    EXPECT_EQ(tokenizer.decode(ids), text) << name;
  }
}

// The prompts of reference_outputs.json were tokenised by the models' own SentencePiece vocabularies, with BOS.
TEST(FixtureTokensOfGguf, Stories) {
  const auto folder = fixtures() / "models";
  FASTKV_REQUIRE_FILE(folder / "reference_outputs.json");
  const Json outputs = Json::parse(read_file(folder / "reference_outputs.json"));
  for (const auto& [model, file] : {std::pair{"stories260K", "stories260K-f32.gguf"},
                                    std::pair{"stories3M (dequantised q80)", "stories3M-Q8_0.gguf"}}) {
    const Tokenizer tokenizer = tokenizer_of(read_vocab_of(folder / file));
    const Json& expected = outputs.at(model);
    const std::string prompt = expected.at("prompt");
    Ids ids = tokenizer.encode(prompt);
    ASSERT_TRUE(tokenizer.add_bos());
    ids.insert(ids.begin(), tokenizer.bos());
    EXPECT_EQ(ids, expected.at("prompt_ids").get<Ids>()) << model;
    // "text" is the prompt and the 64 tokens after it, with the space that SentencePiece puts first, and byte tokens
    // as they are spelled.
    const Ids generated = expected.at("greedy64").get<Ids>();
    ids.insert(ids.end(), generated.begin(), generated.end());
    EXPECT_EQ(" " + replace_all(tokenizer.decode(ids), "\n", "<0x0A>"), expected.at("text").get<std::string>())
        << model;
  }
}

}  // namespace

}  // namespace fastkv::test
