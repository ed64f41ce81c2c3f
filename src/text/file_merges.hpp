// The merges a file lists ("a b", best first) as a table over token ids.
#pragma once

#include "text/merges.hpp"
#include "text/vocabulary.hpp"

namespace fastkv {

/// Throws Error (bad_file) naming the first merge that is not two tokens whose concatenation is a token.
MergeTable read_file_merges(const Vocabulary& vocabulary);

}  // namespace fastkv
