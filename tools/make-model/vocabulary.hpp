// Made-up vocabularies of full size that real tokenizers run on.
#pragma once

#include "fastkv/gguf_writer.hpp"
#include "make-model/shapes.hpp"

namespace fastkv::tools {

/// Adds the tokenizer.* keys for shape.n_vocab tokens: every byte has a token, common English letter pairs merge, the
/// control tokens have the ids and texts of the family, and fillers that no text produces make up the rest.
void add_vocabulary(GgufWriter& writer, const Shape& shape);

}  // namespace fastkv::tools
