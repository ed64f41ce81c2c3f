// How far an arithmetic's distributions of the next token are from another's, over the first tokens of a novel.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include "fastkv/engine.hpp"

namespace fastkv::test {

/// The novel among the fixtures.
std::filesystem::path novel();

/// Logits [tokens, V] of the novel's first `tokens`, the method full.
struct Logits {
  std::size_t vocab = 0;
  std::vector<float> values;
};
Logits novel_logits(const EngineOptions& options, std::size_t tokens);

struct Divergence {
  double mean_kl = 0;    ///< KL(p ‖ q) of each row's distributions, nats
  double same_best = 0;  ///< share of rows with the same best token
};
/// Of q from p, the same rows of both.
Divergence divergence(const Logits& p, const Logits& q);

}  // namespace fastkv::test
