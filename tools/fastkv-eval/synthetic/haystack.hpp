// The text in which something is hidden: sentences of a user's file, or made up.
#pragma once

#include <string>
#include <vector>

#include "fastkv-eval/synthetic/random.hpp"

namespace fastkv::tools {

/// A sentence that says nothing, of our word lists.
std::string made_up_sentence(Random& random);

/// Sentences without end: those of a file again and again, or made up.
class Haystack {
 public:
  /// Made up.
  Haystack() = default;
  /// Of the file at `path`. Throws Error io, bad_file (not one sentence), bad_input (not UTF-8).
  explicit Haystack(const std::string& path);

  /// The first `count` sentences of the passage that `random` chooses: a larger `count` goes on where a smaller one
  /// ends. A file is read on from a random sentence.
  std::vector<std::string> passage(Random random, std::size_t count) const;

 private:
  std::vector<std::string> sentences_;  ///< empty: made up
};

}  // namespace fastkv::tools
