// Pre-tokenisation: regular expressions that cut text into the pieces inside which byte-level BPE merges.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fastkv {

/// A compiled pre-tokenizer. Immutable; may be used by many threads.
class PreTokenizer {
 public:
  /// By the name of `tokenizer.ggml.pre` or an alias of it. Throws Error (unsupported) naming `source`, the name and
  /// all names supported.
  PreTokenizer(std::string_view name, std::string_view source);

  /// Name of the pre-tokenizer whose only regular expression is `regex`, as a tokenizer.json spells it.
  static std::optional<std::string> name_of(std::string_view regex);

  /// All names, aliases left out.
  static std::vector<std::string> names();

  /// Appends the pieces of `text` (valid UTF-8) to `pieces`, in order and without gaps. Linear time.
  void split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  class Pattern;
  std::vector<std::shared_ptr<const Pattern>> stages_;  // each cuts the pieces of the one before
};

}  // namespace fastkv
