// tokenizer.json: what is read, what is refused and why, and damaged files.
#include "text/tokenizer_json.hpp"
#include "core/json.hpp"
#include "random_text.hpp"
#include "vocabularies.hpp"

namespace fastkv::test {

namespace {

using Ids = std::vector<std::int32_t>;

Json byte_level_file() {
  return Json::parse(R"({
    "added_tokens": [{"id": 5, "content": "<s>", "special": true}, {"id": 6, "content": "<tool>", "special": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4}, "merges": ["a b", ["Ġ", "ab"]]}})");
}

Json byte_fallback_file() {
  return Json::parse(R"({
    "added_tokens": [{"id": 0, "content": "<unk>", "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                       {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
              "vocab": {"<unk>": 0, "<0x0A>": 1, "▁": 2, "a": 3, "▁a": 4}, "merges": ["▁ a"]}})");
}

VocabData read(const Json& json) { return parse_tokenizer_json(dump(json), "file"); }

TEST(TokenizerJson, ByteLevel) {
  const VocabData vocab = read(byte_level_file());
  EXPECT_EQ(vocab.model, "gpt2");
  EXPECT_EQ(vocab.pre, "gpt-2");
  EXPECT_EQ(vocab.tokens, (std::vector<std::string>{"a", "b", "ab", "Ġ", "Ġab", "<s>", "<tool>"}));
  EXPECT_EQ(vocab.merges, (std::vector<std::string>{"a b", "Ġ ab"}));
  EXPECT_EQ(vocab.types[5], TokenType::control);
  EXPECT_EQ(vocab.types[6], TokenType::user_defined);
  EXPECT_EQ(vocab.bos, 5);
  EXPECT_TRUE(vocab.add_bos);
  const Tokenizer tokenizer = tokenizer_of(vocab);
  EXPECT_EQ(tokenizer.encode("ab ab<tool>"), (Ids{2, 4, 6}));
}

TEST(TokenizerJson, ByteFallback) {
  Json json = byte_fallback_file();
  VocabData vocab = read(json);
  EXPECT_EQ(vocab.model, "llama");
  EXPECT_EQ(vocab.unknown, 0);
  EXPECT_EQ(vocab.types[0], TokenType::unknown);
  EXPECT_EQ(vocab.types[1], TokenType::byte);
  EXPECT_TRUE(vocab.add_space_prefix);
  EXPECT_FALSE(vocab.add_bos);
  EXPECT_EQ(tokenizer_of(vocab).encode("a\na\r\r"), (Ids{4, 1, 3, 0}));

  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", "first"}, {"split", false}};
  EXPECT_TRUE(read(json).add_space_prefix);
  json["pre_tokenizer"]["prepend_scheme"] = "never";
  EXPECT_FALSE(read(json).add_space_prefix);
  json["pre_tokenizer"]["split"] = true;
  expect_error(ErrorCode::unsupported, "file: unsupported pre_tokenizer '{", [&] { read(json); });
  json["pre_tokenizer"] = nullptr;
  json["normalizer"] = {{"type", "Lowercase"}};
  expect_error(ErrorCode::unsupported, "unsupported normalizer '{\"type\":\"Lowercase\"}'", [&] { read(json); });
}

TEST(TokenizerJson, PreTokenizersByStructure) {
  Json json = byte_level_file();
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const Json bytes_regex = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const auto sequence = [&](std::vector<Json> steps) {
    json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
    return read(json).pre;
  };
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const auto split = [](const std::string& regex) {
    return Json{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
  };
  EXPECT_EQ(sequence({digits, bytes_regex}), "smollm");
  const std::string gpt2 = R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(sequence({split(gpt2), bytes}), "gpt-2");
  for (const std::vector<Json>& steps : std::vector<std::vector<Json>>{
           {split("x+"), bytes}, {split(gpt2), bytes_regex}, {split(gpt2)}, {bytes}, {digits, bytes}, {}}) {
    expect_error(ErrorCode::unsupported, "file: unsupported pre_tokenizer", [&] { sequence(steps); });
  }
}

TEST(TokenizerJson, RefusesWhatItCannotDo) {
  const auto expect_refused = [](ErrorCode code, const std::string& words, const char* pointer, Json value) {
    Json json = byte_level_file();
    json[Json::json_pointer(pointer)] = std::move(value);
    expect_error(code, words, [&] { make_tokenizer(read(json)); });
  };
  const auto unsupported = ErrorCode::unsupported, bad = ErrorCode::bad_file;
  expect_refused(unsupported, "unsupported model 'Unigram'", "/model/type", "Unigram");
  expect_refused(unsupported, "unsupported end_of_word_suffix '</w>'", "/model/end_of_word_suffix", "</w>");
  expect_refused(unsupported, "unsupported rule of an added token 'lstrip'", "/added_tokens/0/lstrip", true);
  expect_refused(bad, "token 'a' has the id -1", "/model/vocab/a", -1);
  expect_refused(bad, "token 'a' has the id 1e+300", "/model/vocab/a", 1e300);
  expect_refused(bad, "token 'a' has the id 4194304, expected 0 to 4194303", "/model/vocab/a", 4194304);
  expect_refused(bad, "token '<s>' has the id \"5\"", "/added_tokens/0/id", "5");
  expect_refused(bad, "no text 'content'", "/added_tokens/0/content", 1);
  expect_refused(bad, "expected an object model.vocab", "/model/vocab", Json::array());
  expect_refused(bad, "expected an array model.merges", "/model/merges", "a b");
  expect_refused(bad, "merge 0 is [\"a\"]", "/model/merges/0", Json::array({"a"}));
  expect_refused(bad, "merge 0 is 'a b b'", "/model/merges/0", Json::array({"a b", "b"}));
  for (const std::string text : {"", "[]", "{", "null", "\xFF"}) {
    expect_error(bad, "file: expected a JSON object", [&] { parse_tokenizer_json(text, "file"); });
  }
}

TEST(TokenizerJson, Config) {
  VocabData vocab = read(byte_level_file());
  add_tokenizer_config(R"({"bos_token": {"content": "a"}, "eos_token": "b", "add_bos_token": false,
                           "chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]})",
                       "config", vocab);
  EXPECT_EQ(vocab.bos, 0);
  EXPECT_EQ(vocab.eos, 1);
  EXPECT_FALSE(vocab.add_bos);
  EXPECT_EQ(vocab.chat_template, "y");
  add_tokenizer_config(R"({"bos_token": null, "eos_token": "not there", "chat_template": "z"})", "config", vocab);
  EXPECT_EQ(vocab.bos, 0);
  EXPECT_EQ(vocab.eos, 1);
  EXPECT_EQ(vocab.chat_template, "z");
  expect_error(ErrorCode::bad_file, "config: expected a JSON object",
               [&] { add_tokenizer_config("7", "config", vocab); });
}

TEST(TokenizerJson, FilesThatAreNotThere) {
  expect_error(ErrorCode::io, "/nonexistent/tokenizer.json: cannot be opened",
               [] { read_tokenizer_json("/nonexistent/tokenizer.json"); });
}

// Damaged files give a vocabulary or an Error, and nothing else.
TEST(TokenizerJson, SurvivesDamage) {
  RandomText random;
  SCOPED_TRACE(random.seed());
  int refused = 0;
  constexpr int kRounds = 3000;
  for (int round = 0; round < kRounds; ++round) {
    std::string text = dump(round % 2 == 0 ? byte_level_file() : byte_fallback_file());
    for (std::uint32_t i = 0; i < 1 + random.below(4); ++i) {
      const std::uint32_t at = random.below(static_cast<std::uint32_t>(text.size()));
      constexpr std::string_view kBytes = "{}[]\",:0129-eE.ab \\\xC3\xFF<>";
      switch (random.below(3)) {
        case 0:
          text[at] = kBytes[random.below(kBytes.size())];
          break;
        case 1:
          text.erase(at, 1 + random.below(20));
          break;
        default:
          text.insert(at, text.substr(random.below(static_cast<std::uint32_t>(text.size())), 1 + random.below(20)));
      }
    }
    try {
      const Tokenizer tokenizer = tokenizer_of(parse_tokenizer_json(text, "file"));
      const Ids ids = tokenizer.encode("ab <s>\n\xC3\xA9", true);
      EXPECT_LT(tokenizer.decode(ids, true).size(), 1000U);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, kRounds / 10);
  EXPECT_LT(refused, kRounds);
}

}  // namespace

}  // namespace fastkv::test
