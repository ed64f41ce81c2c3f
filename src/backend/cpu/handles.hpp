// What the handles of backend.hpp hold on a CPU: plain host arrays.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "backend/backend.hpp"
#include "runtime/memory.hpp"

namespace fastkv::cpu {

/// Memory of a layer's K and V, and of the queries that score them.
struct LayerKv {
  std::int64_t n = 0;
  Array<float> k, v;  ///< [K][n][d], k rotated
  /// Compute layout of K and V, float32 or bfloat16 elements: per key/value head and block of 128 keys
  /// [8 panels][d][16] (keys) and [ceil(d/16)][128][16] (values); bfloat16: simd/kernels.hpp.
  Buffer key_panels, value_panels;
  Array<float> q;  ///< [last rows][H·d] rotated queries, if the layer is scored
};

struct CpuHidden final : Hidden {
  std::int64_t n() const override { return std::int64_t(original.size()); }
  std::vector<std::int32_t> positions() const override { return original; }
  std::vector<std::int32_t> original;  ///< [n] each row's position
  Array<float> x;        ///< [n, D]
  Array<float> cos_sin;  ///< [n][d/2][2] of each row's position
  /// What the last layer's K and V lay in, for the next layer of as many rows: fresh pages cost more than their
  /// contents.
  std::shared_ptr<LayerKv> spare = std::make_shared<LayerKv>();
};

struct CpuLayerState final : LayerState {
  CpuLayerState(LayerKv memory, std::shared_ptr<LayerKv> to) : kv(std::move(memory)), home(std::move(to)) { n = kv.n; }
  ~CpuLayerState() override { *home = std::move(kv); }
  LayerKv kv;
  std::shared_ptr<LayerKv> home;  ///< where `kv` goes afterwards
  std::int64_t query_rows = 0;    ///< last rows whose queries are in kv.q, for scores and for finish_layer
};

/// What scores are computed in, kept from layer to layer: fresh pages cost more than their contents.
struct ScoreMemory {
  HugePages huge_pages = HugePages::automatic;
  Buffer work;                      ///< of column_scores(), grows
  std::vector<Array<float>> spare;  ///< of scores no longer needed
};

struct CpuScores final : Scores {
  CpuScores(int heads, std::int64_t n, std::shared_ptr<ScoreMemory> memory);  ///< zeros
  ~CpuScores() override;
  std::shared_ptr<ScoreMemory> home;
  Array<float> s;  ///< [heads, n]
  float* row(int head) const { return s.data() + std::size_t(head) * std::size_t(n); }
};

struct CpuSelection final : Selection {
  std::vector<std::vector<std::int32_t>> rows;  ///< [heads], each ascending
};

}  // namespace fastkv::cpu
