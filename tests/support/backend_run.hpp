// A run on a Backend by a loop of the tests' own: the half-layers in order, every decision and row written down.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "reference/oracle.hpp"

namespace fastkv::test {

struct BackendLayer {
  std::vector<std::int32_t> positions;                   ///< [n] rows that entered
  std::vector<std::vector<float>> raw, pooled, grouped;  ///< [H][n − w], [H][n − w], [K][n − w]
  std::vector<float> propagation;                        ///< z
  std::vector<std::vector<std::int32_t>> kept;           ///< [stored heads] positions
  std::vector<Matrix> keys, values;                      ///< [stored heads][len][d], as stored after the prompt
  double coverage = -1;
};

struct BackendRun {
  std::vector<BackendLayer> layers;
  std::vector<std::int32_t> tsp_kept, selected;
  std::vector<float> logits;                      ///< [V]
  std::vector<std::vector<float>> decode_logits;  ///< after each fed token
  Imposed decisions() const;                      ///< for the oracle to follow
};

struct BackendRunOptions {
  CacheType cache_k = CacheType::automatic, cache_v = CacheType::automatic;
  bool shortcuts = true;  ///< S1 and S2
  bool read_cache = true;
  bool hold_states = false;  ///< shortcut S13 off: K and V of every layer live to the end
};

/// `feed`: tokens fed one by one after the prompt. The backend is loaded.
BackendRun run_on(Backend& backend, const ModelConfig& config, std::span<const std::int32_t> prompt,
                  const MethodParams& method, std::span<const std::int32_t> feed,
                  const BackendRunOptions& options = {});

}  // namespace fastkv::test
