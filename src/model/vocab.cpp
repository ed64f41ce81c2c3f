// Reads and checks the tokenizer metadata of GGUF files.
#include "model/vocab.hpp"

#include <algorithm>
#include <array>

#include "core/check.hpp"

namespace fastkv {
namespace {

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";

void check_length(const GgufFile& file, std::string_view key, std::size_t found, std::size_t n_vocab) {
  check(found == n_vocab, ErrorCode::bad_file, file.path(), ": key '", key, "': expected one entry per token, ",
        n_vocab, ", found ", found);
}

std::vector<TokenType> token_types(const GgufFile& file, std::size_t n_vocab) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  const auto numbers = file.find_integers(kKey);
  if (!numbers) return {};
  check_length(file, kKey, numbers->size(), n_vocab);
  std::vector<TokenType> types(n_vocab);
  for (std::size_t i = 0; i < n_vocab; ++i) {
    const auto number = (*numbers)[i];
    check(number >= 0 && number <= 6, ErrorCode::bad_file, file.path(), ": key '", kKey,
          "': expected types from 0 to 6, found ", number, " for token ", i);
    types[i] = number == 0 ? TokenType::normal : static_cast<TokenType>(number);  // 0: undefined
  }
  return types;
}

/// A token id, -1 for none: absent, or "no token" written as -1 in 32 bits.
std::int32_t token_id(const GgufFile& file, std::string_view name, std::size_t n_vocab, std::int32_t fallback) {
  const auto key = concat("tokenizer.ggml.", name, "_token_id");
  const auto id = file.find_integer(key);
  if (!id) return fallback < std::int32_t(n_vocab) ? fallback : -1;
  if (*id == -1 || *id == std::int64_t(UINT32_MAX)) return -1;
  // Files of fine-tuned models often name a padding token they do not have; nothing here pads.
  if (name == "padding" && *id >= std::int64_t(n_vocab)) return -1;
  check(*id >= 0 && *id < std::int64_t(n_vocab), ErrorCode::bad_file, file.path(), ": key '", key,
        "': expected an id below the vocabulary size ", n_vocab, ", found ", *id);
  return std::int32_t(*id);
}

}  // namespace

VocabData read_vocab(const GgufFile& file) {
  const auto model = file.find_string("tokenizer.ggml.model");
  check(model.has_value(), ErrorCode::bad_file, file.path(),
        ": expected a tokenizer, found no key 'tokenizer.ggml.model'");
  VocabData vocab;
  vocab.source = file.path();
  vocab.model = *model;
  vocab.pre = file.find_string("tokenizer.ggml.pre").value_or("");
  const auto tokens = file.get_strings(kTokens);
  check(!tokens.empty(), ErrorCode::bad_file, file.path(), ": key '", kTokens,
        "': expected at least one token, found none");
  vocab.tokens.assign(tokens.begin(), tokens.end());
  const auto n_vocab = vocab.tokens.size();
  vocab.types = token_types(file, n_vocab);

  const bool spm = vocab.model == "llama";
  if (spm) {
    auto scores = file.find_floats("tokenizer.ggml.scores");
    check(scores.has_value(), ErrorCode::bad_file, file.path(),
          ": expected the key 'tokenizer.ggml.scores' of a 'llama' tokenizer, found none");
    check_length(file, "tokenizer.ggml.scores", scores->size(), n_vocab);
    vocab.scores = *std::move(scores);
  }
  if (vocab.model == "gpt2") {
    const auto merges = file.get_strings("tokenizer.ggml.merges");
    vocab.merges.assign(merges.begin(), merges.end());
  }

  // What llama.cpp assumes for files that leave these out: SentencePiece's own ids, and a BOS for the vocabularies
  // whose models were trained with one.
  vocab.bos = token_id(file, "bos", n_vocab, spm ? 1 : -1);
  vocab.eos = token_id(file, "eos", n_vocab, spm ? 2 : -1);
  vocab.unknown = token_id(file, "unknown", n_vocab, spm ? 0 : -1);
  vocab.eot = token_id(file, "eot", n_vocab, -1);
  vocab.eom = token_id(file, "eom", n_vocab, -1);
  vocab.padding = token_id(file, "padding", n_vocab, -1);
  constexpr std::array<std::string_view, 4> kWholeWords = {"llama-bpe", "llama3", "llama-v3", "tekken"};
  vocab.ignore_merges = std::find(kWholeWords.begin(), kWholeWords.end(), vocab.pre) != kWholeWords.end();
  vocab.add_bos = file.find_bool("tokenizer.ggml.add_bos_token").value_or(spm || vocab.ignore_merges);
  vocab.add_space_prefix = file.find_bool("tokenizer.ggml.add_space_prefix").value_or(true);
  vocab.chat_template = file.find_string("tokenizer.chat_template").value_or("");
  return vocab;
}

}  // namespace fastkv
