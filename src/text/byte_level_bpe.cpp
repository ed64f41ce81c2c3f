// Byte-level BPE: pieces cut by a regular expression, bytes merged inside each piece by rank.
#include <array>

#include "text/file_merges.hpp"
#include "text/merges.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/text_model.hpp"
#include "text/vocabulary.hpp"

namespace fastkv {

namespace {

struct Rules {
  std::string pre_tokenizer;
  bool ignore_merges;
};

/// Files that are older than the pre-tokenizer's key, or say "default": Llama 3's by its tokens, else GPT-2's.
Rules rules_of(const Vocabulary& vocabulary) {
  const VocabData& data = vocabulary.data();
  if (!data.pre.empty() && data.pre != "default") return {data.pre, data.ignore_merges};
  const bool llama3 = vocabulary.find_spelling("<|begin_of_text|>") >= 0 && vocabulary.find_spelling("<|eot_id|>") >= 0;
  return llama3 ? Rules{"llama-bpe", true} : Rules{"gpt-2", data.ignore_merges};
}

class ByteLevelBpe final : public TextModel {
 public:
  explicit ByteLevelBpe(const Vocabulary& vocabulary) : ByteLevelBpe(vocabulary, rules_of(vocabulary)) {}

  ByteLevelBpe(const Vocabulary& vocabulary, const Rules& rules)
      : vocabulary_(vocabulary),
        pre_tokenizer_(rules.pre_tokenizer, vocabulary.data().source),
        merges_(read_file_merges(vocabulary)),
        ignore_merges_(rules.ignore_merges) {
    for (std::size_t byte = 0; byte < bytes_.size(); ++byte) {
      const char text = static_cast<char>(byte);
      bytes_[byte] = find_plain({&text, 1});
    }
  }

  void encode(std::string_view text, FragmentStart, std::vector<std::int32_t>& ids) const override {
    std::vector<std::string_view> pieces;
    pre_tokenizer_.split(text, pieces);
    SymbolList symbols;
    for (const std::string_view piece : pieces) {
      const std::int32_t whole = ignore_merges_ ? find_plain(piece) : kNoSymbol;
      if (whole >= 0) {
        ids.push_back(whole);
      } else {
        merge_piece(piece, symbols, ids);
      }
    }
  }

 private:
  std::int32_t find_plain(std::string_view bytes) const {
    const std::int32_t id = vocabulary_.find(bytes);
    return id >= 0 && !vocabulary_.is_control(id) ? id : kNoSymbol;
  }

  void merge_piece(std::string_view piece, SymbolList& symbols, std::vector<std::int32_t>& ids) const {
    symbols.reset(piece.size());
    for (std::size_t i = 0; i < piece.size(); ++i) {
      symbols.append(i, i + 1, bytes_[static_cast<unsigned char>(piece[i])]);
    }
    symbols.merge(merges_);
    // Some vocabularies lack a token for rare control bytes; like their own tokenizers this one passes over them.
    symbols.for_each([&](std::size_t, std::size_t, std::int32_t symbol) {
      if (symbol != kNoSymbol) ids.push_back(symbol);
    });
  }

  const Vocabulary& vocabulary_;
  PreTokenizer pre_tokenizer_;
  MergeTable merges_;
  bool ignore_merges_;
  std::array<std::int32_t, 256> bytes_{};  // token of one byte, or kNoSymbol
};

}  // namespace

std::unique_ptr<TextModel> make_byte_level_bpe(const Vocabulary& vocabulary) {
  return std::make_unique<ByteLevelBpe>(vocabulary);
}

}  // namespace fastkv
