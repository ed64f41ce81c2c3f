// The cache of one sequence: kept rows per layer and stored head, and the next position, which is not the length.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.hpp"

namespace fastkv {

/// Rows keep the rotation of their original position, so gaps stay; a token fed next has `next_position` whatever the
/// lengths (spec/methods.md 0.5). Layers may differ in length, and heads within a layer too.
struct KvCache {
  std::vector<std::unique_ptr<LayerCache>> layers;   ///< [N]
  std::int64_t next_position = 0;

  std::size_t bytes() const;                         ///< of all rows now stored

  /// The step that feeds `tokens` at next_position; call advance() once it has run.
  SequenceStep step(std::span<const std::int32_t> tokens) const { return {layers, tokens, next_position}; }
  void advance(std::int64_t tokens) { next_position += tokens; }
};

}  // namespace fastkv
