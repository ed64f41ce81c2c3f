// Implements tokenizer_json.hpp: checks that the file's pipeline is one of those this library has, then copies tables.
#include "text/tokenizer_json.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "core/check.hpp"
#include "core/json.hpp"
#include "text/pre_tokenizer.hpp"

namespace fastkv {

namespace {

constexpr std::size_t kMostTokens = std::size_t{1} << 22;
constexpr std::string_view kSpaceMark = "\u2581";

Json parse(std::string_view text, const std::string& source) {
  Json json = Json::parse(text, nullptr, false);
  check(json.is_object(), ErrorCode::bad_file, source, ": expected a JSON object");
  return json;
}

/// The member `key` of an object, null when absent or when `json` is no object.
const Json& member(const Json& json, const char* key) {
  static const Json null;
  if (!json.is_object()) return null;
  const auto it = json.find(key);
  return it == json.end() ? null : *it;
}

bool bool_or(const Json& json, const char* key, bool otherwise) {
  const Json& value = member(json, key);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

std::string string_or_empty(const Json& value) { return value.is_string() ? value.get<std::string>() : std::string(); }

std::string type_of(const Json& part) { return string_or_empty(member(part, "type")); }

/// The steps of a "Sequence" (whose list has the name `list`), the one step of anything else, none of null.
std::vector<Json> steps(const Json& part, const char* list) {
  if (part.is_null()) return {};
  if (type_of(part) != "Sequence") return {part};
  const Json& all = member(part, list);
  return all.is_array() ? std::vector<Json>(all.begin(), all.end()) : std::vector<Json>{};
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& source) : json_(parse(text, source)) { vocab_.source = source; }

  VocabData read() {
    const Json& model = member(json_, "model");
    const std::string type = type_of(model);
    // Files of 2019 (GPT-2's) leave the type out.
    if (type != "BPE" && !(type.empty() && member(model, "merges").is_array())) refuse("model", type);
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!string_or_empty(member(model, affix)).empty()) refuse(affix, string_or_empty(member(model, affix)));
    }
    const bool byte_fallback = bool_or(model, "byte_fallback", false);
    vocab_.model = byte_fallback ? "llama" : "gpt2";
    read_tokens(model, byte_fallback);
    read_merges(member(model, "merges"));
    vocab_.ignore_merges = bool_or(model, "ignore_merges", false);
    if (byte_fallback) {
      read_space_rules();
    } else {
      read_byte_level();
    }
    read_bos();
    return std::move(vocab_);
  }

 private:
  [[noreturn]] void refuse(std::string_view part, std::string_view what) const {
    fail(ErrorCode::unsupported, vocab_.source, ": unsupported ", part, " '", what,
         "' of a tokenizer.json; supported: BPE over bytes with the pre-tokenizers ", pre_tokenizers(),
         ", and BPE with byte fallback");
  }

  static std::string pre_tokenizers() {
    std::string all;
    for (const std::string& name : PreTokenizer::names()) all += concat(all.empty() ? "" : ", ", name);
    return all;
  }

  void put_token(const Json& id, const std::string& text, TokenType type) {
    const bool fits = id.is_number_unsigned() && id.get<std::uint64_t>() < kMostTokens;
    check(fits, ErrorCode::bad_file, vocab_.source, ": token '", text, "' has the id ", dump(id), ", expected 0 to ",
          kMostTokens - 1);
    const auto at = id.get<std::size_t>();
    if (at >= vocab_.tokens.size()) {
      vocab_.tokens.resize(at + 1);
      vocab_.types.resize(at + 1, TokenType::unused);
    }
    vocab_.tokens[at] = text;
    vocab_.types[at] = type;
  }

  void read_tokens(const Json& model, bool byte_fallback) {
    const Json& table = member(model, "vocab");
    check(table.is_object() && !table.empty(), ErrorCode::bad_file, vocab_.source, ": expected an object model.vocab");
    const std::string unknown = string_or_empty(member(model, "unk_token"));
    for (const auto& [text, id] : table.items()) {
      const bool byte = byte_fallback && text.size() == 6 && text.starts_with("<0x") && text.ends_with('>');
      put_token(id, text, byte ? TokenType::byte : TokenType::normal);
    }
    const Json& added = member(json_, "added_tokens");
    for (const Json& token : added.is_array() ? added : Json::array()) {
      const Json& text = member(token, "content");
      check(text.is_string(), ErrorCode::bad_file, vocab_.source, ": an added token has no text 'content'");
      for (const char* rule : {"single_word", "lstrip", "rstrip"}) {
        if (bool_or(token, rule, false)) refuse("rule of an added token", rule);
      }
      put_token(member(token, "id"), text.get<std::string>(),
                bool_or(token, "special", false) ? TokenType::control : TokenType::user_defined);
    }
    if (unknown.empty() || !table.contains(unknown)) return;
    vocab_.unknown = table[unknown].get<std::int32_t>();
    vocab_.types[static_cast<std::size_t>(vocab_.unknown)] = TokenType::unknown;
  }

  void read_merges(const Json& merges) {
    check(merges.is_array(), ErrorCode::bad_file, vocab_.source, ": expected an array model.merges");
    vocab_.merges.reserve(merges.size());
    for (const Json& merge : merges) {
      if (merge.is_string()) {
        vocab_.merges.push_back(merge.get<std::string>());
        continue;
      }
      const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
      check(pair, ErrorCode::bad_file, vocab_.source, ": merge ", vocab_.merges.size(), " is ", dump(merge),
            ", expected \"a b\" or [\"a\", \"b\"]");
      vocab_.merges.push_back(merge[0].get<std::string>() + ' ' + merge[1].get<std::string>());
    }
  }

  /// Byte fallback: whether a space is put before the text, and that nothing else is done to it.
  void read_space_rules() {
    vocab_.add_space_prefix = false;
    for (const Json& step : steps(member(json_, "normalizer"), "normalizers")) {
      const bool prepend = type_of(step) == "Prepend" && member(step, "prepend") == kSpaceMark;
      const bool replace = type_of(step) == "Replace" && member(member(step, "pattern"), "String") == " " &&
                           member(step, "content") == kSpaceMark;
      if (!prepend && !replace) refuse("normalizer", dump(step));
      vocab_.add_space_prefix |= prepend;
    }
    for (const Json& step : steps(member(json_, "pre_tokenizer"), "pretokenizers")) {
      const bool whole = type_of(step) == "Metaspace" && !bool_or(step, "split", true);
      if (!whole) refuse("pre_tokenizer", dump(step));
      vocab_.add_space_prefix |= bool_or(step, "add_prefix_space", false);  // files before prepend_scheme
      const std::string scheme = string_or_empty(member(step, "prepend_scheme"));
      vocab_.add_space_prefix |= scheme == "first" || scheme == "always";
    }
  }

  /// Bytes: the pre-tokenizer by its expressions.
  void read_byte_level() {
    for (const Json& step : steps(member(json_, "normalizer"), "normalizers")) {
      if (type_of(step) != "NFC") refuse("normalizer", dump(step));
    }
    const Json& pre = member(json_, "pre_tokenizer");
    bool bytes = false, digits = false;
    for (const Json& step : steps(pre, "pretokenizers")) {
      const std::string type = type_of(step);
      if (type == "ByteLevel" && !bytes && !bool_or(step, "add_prefix_space", false)) {
        bytes = true;
        if (bool_or(step, "use_regex", true) == vocab_.pre.empty()) {
          if (vocab_.pre.empty()) vocab_.pre = digits ? "smollm" : "gpt-2";
          continue;
        }
      } else if (type == "Digits" && bool_or(step, "individual_digits", false) && vocab_.pre.empty() && !digits) {
        digits = true;
        continue;
      } else if (type == "Split" && member(step, "behavior") == "Isolated" && vocab_.pre.empty() && !digits) {
        const auto name = PreTokenizer::name_of(string_or_empty(member(member(step, "pattern"), "Regex")));
        if (name) {
          vocab_.pre = *name;
          continue;
        }
      }
      refuse("pre_tokenizer", dump(step));
    }
    if (!bytes) refuse("pre_tokenizer", dump(pre));
  }

  /// The BOS that the post-processor puts first, else the token of that name.
  void read_bos() {
    vocab_.add_bos = false;
    for (const Json& step : steps(member(json_, "post_processor"), "processors")) {
      const Json& single = member(step, "single");
      if (!single.is_array() || single.empty()) continue;
      const std::string first = string_or_empty(member(member(single[0], "SpecialToken"), "id"));
      const auto it = std::find(vocab_.tokens.begin(), vocab_.tokens.end(), first);
      if (first.empty() || it == vocab_.tokens.end()) continue;
      vocab_.bos = static_cast<std::int32_t>(it - vocab_.tokens.begin());
      vocab_.add_bos = true;
    }
    for (const char* name : {"<s>", "<|begin_of_text|>"}) {
      for (std::size_t id = 0; vocab_.bos < 0 && id < vocab_.tokens.size(); ++id) {
        if (vocab_.tokens[id] == name && vocab_.types[id] == TokenType::control)
          vocab_.bos = static_cast<std::int32_t>(id);
      }
    }
  }

  Json json_;
  VocabData vocab_;
};

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.good(), ErrorCode::io, path.string(), ": cannot be opened");
  std::string text(std::istreambuf_iterator<char>(file), {});
  check(!file.bad(), ErrorCode::io, path.string(), ": cannot be read");
  return text;
}

}  // namespace

VocabData parse_tokenizer_json(std::string_view json, const std::string& source) { return Reader(json, source).read(); }

void add_tokenizer_config(std::string_view json, const std::string& source, VocabData& vocab) {
  const Json config = parse(json, source);
  const auto id_of = [&](const char* key, std::int32_t otherwise) {
    const Json& value = member(config, key);
    const std::string text = string_or_empty(value.is_object() ? member(value, "content") : value);
    const auto it = std::find(vocab.tokens.begin(), vocab.tokens.end(), text);
    return text.empty() || it == vocab.tokens.end() ? otherwise : static_cast<std::int32_t>(it - vocab.tokens.begin());
  };
  vocab.bos = id_of("bos_token", vocab.bos);
  vocab.eos = id_of("eos_token", vocab.eos);
  vocab.padding = id_of("pad_token", vocab.padding);
  vocab.add_bos = bool_or(config, "add_bos_token", vocab.add_bos);
  const Json& chat = member(config, "chat_template");
  if (chat.is_string()) vocab.chat_template = chat.get<std::string>();
  for (const Json& named : chat.is_array() ? chat : Json::array()) {  // several: the one called default
    if (member(named, "name") == "default") vocab.chat_template = string_or_empty(member(named, "template"));
  }
}

VocabData read_tokenizer_json(const std::string& path) {
  VocabData vocab = parse_tokenizer_json(read_text(path), path);
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (const auto config = folder / "tokenizer_config.json"; std::filesystem::exists(config)) {
    add_tokenizer_config(read_text(config), config.string(), vocab);
  }
  if (const auto jinja = folder / "chat_template.jinja"; std::filesystem::exists(jinja)) {
    vocab.chat_template = read_text(jinja);
  }
  return vocab;
}

}  // namespace fastkv
