// Implements pre_tokenizer.hpp on PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pre_tokenizer.hpp"

#include <pcre2.h>

#include <array>
#include <limits>

#include "core/check.hpp"
#include "text/utf8.hpp"

namespace fastkv {

namespace {

constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
                                     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
                                     R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt2 = R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDigit = R"(\p{N})";

/// To add a pre-tokenizer: one row. `regexes` are the model's own, unchanged; matches and what lies between them are
/// the pieces. `names`: the canonical one first, then those that llama.cpp maps to the same expressions.
struct Preset {
  std::array<std::string_view, 6> names;
  std::array<std::string_view, 2> regexes;
};

constexpr Preset kPresets[] = {
    {{"llama-bpe", "llama3", "llama-v3"}, {kLlama3}},
    {{"tekken"}, {kTekken}},
    {{"smollm", "starcoder", "refact", "command-r", "codeshell"}, {kDigit, kGpt2}},
    {{"gpt-2", "gpt2", "default", "phi-2", "gigachat", "mellum"}, {kGpt2}},
    {{"qwen2", "deepseek-r1-qwen", "stablelm2", "kormo", "megrez"}, {kQwen2}},
};

const Preset* find_preset(std::string_view name) {
  for (const Preset& preset : kPresets) {
    for (const std::string_view known : preset.names) {
      if (!known.empty() && known == name) return &preset;
    }
  }
  return nullptr;
}

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 128> buffer{};
  pcre2_get_error_message(error, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

class PreTokenizer::Pattern {
 public:
  explicit Pattern(std::string_view regex) {
    // PCRE2's \s also matches U+180E, which Unicode no longer calls white space; tokenizers go by the property.
    const std::string unicode = replace_all(replace_all(regex, "\\s", "\\p{White_Space}"), "\\S", "\\P{White_Space}");
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(unicode.data()), unicode.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr));
    check(code_ != nullptr, ErrorCode::internal, "pre-tokenizer expression: ", message_of(error), " at ", at);
    // Without JIT (a hardened kernel) matching is several times slower and gives the same pieces.
    has_jit_ = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE) == 0;
    context_.reset(pcre2_match_context_create(nullptr));
    check(context_ != nullptr, ErrorCode::out_of_memory, "no memory for a pre-tokenizer");
    // One piece may be as long as the text; the expressions cost a bounded number of steps per byte.
    pcre2_set_match_limit(context_.get(), std::numeric_limits<std::uint32_t>::max());
    pcre2_set_depth_limit(context_.get(), std::numeric_limits<std::uint32_t>::max());
  }

  /// Appends matches and what lies between them.
  void split(std::string_view text, std::vector<std::string_view>& pieces) const {
    const MatchData match(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    check(match != nullptr, ErrorCode::out_of_memory, "no memory to match a pre-tokenizer");
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::size_t done = 0;
    while (done < text.size()) {
      const int found =
          has_jit_
              ? pcre2_jit_match(code_.get(), subject, text.size(), done, 0, match.get(), context_.get())
              : pcre2_match(code_.get(), subject, text.size(), done, PCRE2_NO_UTF_CHECK, match.get(), context_.get());
      if (found == PCRE2_ERROR_NOMATCH) break;
      check(found > 0, ErrorCode::internal, "pre-tokenizer at byte ", done, ": ", message_of(found));
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
      check(range[1] > range[0], ErrorCode::internal, "pre-tokenizer: empty match at byte ", range[0]);
      if (range[0] > done) pieces.push_back(text.substr(done, range[0] - done));
      pieces.push_back(text.substr(range[0], range[1] - range[0]));
      done = range[1];
    }
    if (done < text.size()) pieces.push_back(text.substr(done));
  }

 private:
  Code code_;
  MatchContext context_;
  bool has_jit_ = false;
};

PreTokenizer::PreTokenizer(std::string_view name, std::string_view source) {
  const Preset* preset = find_preset(name);
  if (preset == nullptr) {
    std::string supported;
    for (const std::string& each : names()) supported += concat(supported.empty() ? "" : ", ", each);
    fail(ErrorCode::unsupported, source, ": unsupported pre-tokenizer '", name, "'; supported: ", supported);
  }
  for (const std::string_view regex : preset->regexes) {
    if (!regex.empty()) stages_.push_back(std::make_shared<Pattern>(regex));
  }
}

std::optional<std::string> PreTokenizer::name_of(std::string_view regex) {
  for (const Preset& preset : kPresets) {
    if (preset.regexes[0] == regex && preset.regexes[1].empty()) return std::string(preset.names[0]);
  }
  return std::nullopt;
}

std::vector<std::string> PreTokenizer::names() {
  std::vector<std::string> all;
  for (const Preset& preset : kPresets) all.emplace_back(preset.names[0]);
  return all;
}

void PreTokenizer::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  if (stages_.size() == 1) return stages_[0]->split(text, pieces);
  std::vector<std::string_view> cut{text}, finer;
  for (const auto& stage : stages_) {
    finer.clear();
    for (const std::string_view piece : cut) stage->split(piece, finer);
    cut.swap(finer);
  }
  pieces.insert(pieces.end(), cut.begin(), cut.end());
}

}  // namespace fastkv
