// A few rows through a layer's matrices (decode, or the last row of prefill): each matrix is split over the threads by
// panels, all rows share one read of the weights.
#pragma once

#include <functional>
#include <initializer_list>
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

  /// The matrices of a phase, whose panels the threads share: one matrix after another or, paired, two of equal shape
  /// side by side. Empty: none.
  struct Phase {
    SharedWork* work = nullptr;
    const PackedTensor* w[3] = {};
    int matrices = 0;
    bool paired = false;
    int sides = 2;           ///< runs of a matrix in an item: two side by side, or one
    std::int64_t each = 0;   ///< panels of a run of an item at most
    std::int64_t items = 0;  ///< of all matrices

    std::int64_t items_of(const PackedTensor& matrix) const;
    bool floats() const;  ///< whether one has float weights
  };
  Phase projections(const LayerWeights& layer, bool with_kv);
  Phase head(const Weights& weights);

  /// q (and k, v) = norm(x) · Wᵀ + bias.
  void project(int thread, const LayerWeights& layer, bool with_kv);
  /// x += attention · Woᵀ; x += (silu(h · Wgᵀ) ∘ h · Wuᵀ) · Wdᵀ with h = norm(x). `attention` must be complete.
  /// `following` is the phase after these, or empty: threads fetch its first bytes while they wait for each other.
  void output_and_mlp(int thread, const LayerWeights& layer, const Phase& following);
  /// out [M, V] = norm(x) · W_outputᵀ, if not null; in decode done(row, tokens, logits) for each piece of them while
  /// the thread has it in L1.
  using HeadDone = std::function<void(std::int64_t row, Range tokens, const float* logits)>;
  void output_head(int thread, const Weights& weights, float* out, const HeadDone& done);

 private:
  /// Two runs of panels that a thread reads side by side, of one item or several neighbours: of both halves of its
  /// share of a matrix, or of paired ones. Or one run.
  struct Item {
    std::int64_t items;
    int matrix;  ///< index into Phase::w of the first run's
    const PackedTensor* w[2];
    Range runs[2];  ///< the second may be shorter, or empty
  };
  struct Job {
    const Linear* linear;
    float* out;  ///< [M, ld]
    std::int64_t ld;
    bool accumulate;
  };
  struct Strides {
    std::int64_t row, place;
  };
  /// Prepares norm(x) for the matrices of `phase`.
  void normalise(int thread, const std::vector<float>& weight, const Phase& phase);
  Phase phase(SharedWork& work, std::initializer_list<const PackedTensor*> matrices, bool paired) const;
  /// As many of `items` as are neighbours.
  Item item_of(const Phase& phase, Range items) const;
  /// What a thread reads after `item`, most likely: the next item of its run, or its first one of the phase after it.
  /// Nothing where kernels do not fetch.
  simd::PanelRuns next_of(const Phase& phase, std::int64_t item, int thread, const Phase& following) const;
  /// fn(place, run, panel) for both runs.
  template <class Fn>
  static void for_each_panel(const Item& item, const Fn& fn);
  /// Products of the thread's prepared rows with the panels of `item`, row i and place j at y + i·row + j·place.
  Strides multiply_panels(int thread, const Phase& phase, const Item& item, const simd::PanelRuns& next,
                          float* y) const;
  /// body(item, strides of its products in own.y) for the thread's items, fetch(item) before each product; ends with a
  /// barrier.
  template <class Fetch, class Body>
  void share(int thread, const Phase& phase, const Phase& following, const Fetch& fetch, const Body& body);
  /// Asks for the places of an item's outputs in out [M, ld].
  void fetch_places(const Item& item, const float* out, std::int64_t ld) const;
  void multiply(int thread, const Phase& phase, const Phase& following, const Job* jobs);

  const Arithmetic& arithmetic_;
  const ModelConfig& config_;
  ThreadTeam& team_;
  StageClocks& clocks_;
  LinearUse use_;
  std::int64_t rows_;
  Array<float> x_, q_, k_, v_, attention_, act_;
  RowTile act_tile_;  ///< of all threads, decode only: `act` prepared as it is made
  struct Own {        ///< per thread
    RowTile tile;
    Array<float> normed;  ///< [M, D]
    Array<float> y;       ///< outputs of items: [M][panels][16]; with LinearUse::prefill [panels][M][16]
    Array<float> panel;   ///< [K32][16] for RowTile::multiply_panel
  };
  std::vector<std::unique_ptr<Own>> own_;
  SharedWork qkv_work_, output_work_, gate_up_work_, down_work_, head_work_;
};

}  // namespace fastkv::cpu
