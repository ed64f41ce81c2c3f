// Attention of the rows of a decode step over their cached keys and values.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "backend/cpu/layer_cache.hpp"
#include "backend/cpu/narrow_layer.hpp"
#include "core/stage_clock.hpp"
#include "runtime/parallel.hpp"
#include "runtime/shared_work.hpp"

namespace fastkv::cpu {

/// One row of a decode step.
struct StepRow {
  const SequenceStep* sequence;
  std::int64_t ahead;  ///< rows of the same sequence after this one, which it must not see

  CpuLayerCache& cache(int layer) const { return static_cast<CpuLayerCache&>(*sequence->layers[std::size_t(layer)]); }
  std::int64_t visible(int layer, int stored) const { return cache(layer).length(stored) - ahead; }
};

/// Items of a layer: (row, stored head, chunk of keys), shared by the threads of a team. Keeps its memory from step to
/// step.
class DecodeAttention {
 public:
  /// `bf16`: bfloat16 dot products where the level and the cache's types have them, else float32.
  DecodeAttention(const simd::KernelTable& kernels, const AttentionShape& shape, bool bf16, ThreadTeam& team,
                  StageClocks& clocks);

  /// What follows concerns these rows of models of `layers` layers; their caches have room for them.
  void begin(std::vector<StepRow> rows, int layers);
  std::vector<float>& cos_sin() { return cos_sin_; }  ///< [rows][d], the rotation of each row: written by the caller
  /// By every thread inside ThreadTeam::run: rotates q and k of `narrow`, appends k and v to the caches, and leaves
  /// what attention gives in narrow.attention(). Starts and ends with all threads met.
  void run(int thread, int layer, NarrowLayer& narrow);

 private:
  void append(int thread, int layer, NarrowLayer& narrow);
  /// Leaves maximum, sum and weighted values of one chunk for each query head that reads the stored head.
  void attend(int layer, std::int64_t row, int stored, std::int64_t chunk, const NarrowLayer& narrow);
  /// Joins the chunks of a stored head, in order.
  void combine(int layer, std::int64_t row, int stored, NarrowLayer& narrow);
  int readers(const CpuLayerCache& cache) const { return shape_.heads / cache.heads(); }
  /// Of partial results [row][stored head][chunk][reader]: those of a chunk's first reader.
  std::size_t partial(std::int64_t row, int stored, std::int64_t chunk, int readers) const {
    return std::size_t((row * shape_.heads + stored * readers) * chunks_ + chunk * readers);
  }

  const simd::KernelTable& kernels_;
  AttentionShape shape_;
  bool bf16_;
  ThreadTeam& team_;
  StageClocks& clocks_;
  SharedWork work_;
  std::vector<StepRow> rows_;
  std::int64_t chunks_ = 0;  ///< of the longest head
  std::vector<float> cos_sin_;
  std::vector<float> weighted_, maximum_, sum_;  ///< partial results, weighted [..][d]
  std::size_t counters_ = 0;
  std::unique_ptr<std::atomic<std::int64_t>[]> done_;  ///< [row][stored head], chunks
};

}  // namespace fastkv::cpu
