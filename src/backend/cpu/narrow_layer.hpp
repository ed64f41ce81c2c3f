// A few rows through a layer's matrices (decode, or the last row of prefill): each matrix is split over the threads by
// panels, all rows share one read of the weights.
#pragma once

#include <memory>
#include <vector>

#include "backend/cpu/weights.hpp"
#include "core/stage_clock.hpp"
#include "runtime/parallel.hpp"
#include "runtime/shared_work.hpp"

namespace fastkv::cpu {

/// Buffers of M rows, shared by a team. With LinearUse::prefill the rows are computed as tiles of many are (shortcut S2
/// is lossless). The methods are called by every thread inside ThreadTeam::run and end with a
/// barrier, after which their results may be read by all. They start the thread's watch, which runs on when they
/// return.
class NarrowLayer {
 public:
  NarrowLayer(const Arithmetic& arithmetic, const ModelConfig& config, ThreadTeam& team, StageClocks& clocks,
              LinearUse use, std::int64_t rows);
  static std::size_t bytes(const Arithmetic& arithmetic, const ModelConfig& config, int threads, std::int64_t rows);

  std::int64_t rows() const { return rows_; }
  float* x() const { return x_.data(); }                  ///< [M, D] residual stream
  float* q() const { return q_.data(); }                  ///< [M, H·d], not yet rotated
  float* k() const { return k_.data(); }                  ///< [M, K·d], not yet rotated
  float* v() const { return v_.data(); }                  ///< [M, K·d]
  float* attention() const { return attention_.data(); }  ///< [M, H·d] written by the caller

  /// q (and k, v) = norm(x) · Wᵀ + bias.
  void project(int thread, const LayerWeights& layer, bool with_kv);
  /// x += attention · Woᵀ; x += (silu(h · Wgᵀ) ∘ h · Wuᵀ) · Wdᵀ with h = norm(x). `attention` must be complete.
  void output_and_mlp(int thread, const LayerWeights& layer);
  /// out [M, V] = norm(x) · W_outputᵀ.
  void output_head(int thread, const Weights& weights, float* out);

 private:
  struct Job {
    const Linear* linear;
    float* out;  ///< [M, ld]
    std::int64_t ld;
    bool accumulate;
  };
  void normalise(int thread, const std::vector<float>& weight);
  /// Two runs of panels: a thread reads both halves of its share of a matrix side by side.
  struct Item {
    std::int64_t each;  ///< panels of a run at most
    Range runs[2];      ///< the second may be shorter, or empty
  };
  /// Items of a matrix of `panels` panels.
  static std::int64_t items_of(std::int64_t panels, std::int64_t each);
  /// Item `item` of such a matrix, one of those, `share`, that are one thread's.
  static Item item_of(std::int64_t panels, std::int64_t each, Range share, std::int64_t item);
  /// fn(place, panel) for both runs.
  template <class Fn>
  static void for_each_panel(const Item& item, const Fn& fn);
  /// Products of the thread's prepared rows with the panels of `item`, row i and place j at y + i·row + j·place.
  struct Strides {
    std::int64_t row, place;
  };
  Strides multiply_panels(int thread, const PackedTensor& w, const Item& item, float* y) const;
  /// Panels of a run of an item, of `panels` in all.
  std::int64_t panels_per_run(std::int64_t panels, std::size_t bytes) const;
  void multiply(SharedWork& work, int thread, const Job* jobs, int count);
  template <class Body>
  void share(SharedWork& work, int thread, std::int64_t count, const Body& body);

  const Arithmetic& arithmetic_;
  const ModelConfig& config_;
  ThreadTeam& team_;
  StageClocks& clocks_;
  LinearUse use_;
  std::int64_t rows_;
  Array<float> x_, q_, k_, v_, attention_, act_;
  struct Own {  ///< per thread
    RowTile tile;
    Array<float> normed;  ///< [M, D]
    Array<float> y;       ///< [2][2 kMaxRun][M, 16], outputs of one item (gate and up)
    Array<float> panel;   ///< [K32][16] for RowTile::multiply_panel
  };
  std::vector<std::unique_ptr<Own>> own_;
  SharedWork qkv_work_, output_work_, gate_up_work_, down_work_, head_work_;
};

}  // namespace fastkv::cpu
