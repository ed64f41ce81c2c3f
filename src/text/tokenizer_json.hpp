// Vocabularies from Hugging Face's tokenizer.json.
#pragma once

#include <string>
#include <string_view>

#include "core/vocab.hpp"

namespace fastkv {

/// Parses the text of a tokenizer.json: BPE over bytes, or BPE with byte fallback (read as "llama", with merges in
/// place of scores). Unicode normalisation (NFC in Qwen's) is not applied, as in llama.cpp. `source` is the file's
/// name. Throws Error: bad_file for malformed content, unsupported naming the part of the pipeline this library lacks.
VocabData parse_tokenizer_json(std::string_view json, const std::string& source);

/// Adds what a tokenizer_config.json says: BOS and EOS, whether to add the BOS, the chat template. Throws bad_file.
void add_tokenizer_config(std::string_view json, const std::string& source, VocabData& vocab);

/// Reads `path`, and beside it tokenizer_config.json and chat_template.jinja if they exist. Also throws Error io.
VocabData read_tokenizer_json(const std::string& path);

}  // namespace fastkv
