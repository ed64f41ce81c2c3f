// The vocabulary of a GGUF file of any architecture, as plain data.
#pragma once

#include "core/vocab.hpp"
#include "model/gguf.hpp"

namespace fastkv {

/// The `tokenizer.*` metadata of `file` (spec/models.md 6). Throws Error bad_file: no tokenizer, arrays of unequal
/// length, token types or ids out of range. Whether the tokenizer model is one that fastkv runs is decided in text/.
VocabData read_vocab(const GgufFile& file);

}  // namespace fastkv
