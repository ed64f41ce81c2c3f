// How far an arithmetic's distributions of the next token are from another's, over the first tokens of a text.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include "fastkv/engine.hpp"

namespace fastkv::test {

/// Logits [tokens, V] of the first `tokens` of the file `text`, the method full.
struct Logits {
  std::size_t vocab = 0;
  std::vector<float> values;
};
Logits text_logits(const EngineOptions& options, const std::filesystem::path& text, std::size_t tokens);

struct Divergence {
  double mean_kl = 0;    ///< KL(p ‖ q) of each row's distributions, nats
  double same_best = 0;  ///< share of rows with the same best token
};
/// Of q from p, the same rows of both.
Divergence divergence(const Logits& p, const Logits& q);

}  // namespace fastkv::test
