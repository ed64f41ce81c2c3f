// The CPU backend: blocks of outputs and batches of rows, spread over pinned threads, on the kernels of simd/.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cpu/attention.hpp"
#include "backend/cpu/decode_attention.hpp"
#include "backend/cpu/layer_cache.hpp"
#include "backend/cpu/narrow_layer.hpp"
#include "backend/cpu/scores.hpp"
#include "backend/cpu/weights.hpp"
#include "backend/cpu/wide_linear.hpp"
#include "core/stage_clock.hpp"
#include "runtime/parallel.hpp"
#include "runtime/placement.hpp"
#include "runtime/shared_work.hpp"
#include "runtime/topology.hpp"

namespace fastkv::cpu {

class CpuBackend final : public Backend {
 public:
  /// `topology`: the machine to place threads and memory on; tests give others than this one.
  CpuBackend(const EngineOptions& options, const ModelConfig& config, const ModelTensors& tensors,
             const Topology& topology = Topology::detect());

  /// ISA levels that this CPU can run, best last: "scalar avx2 …".
  static std::string isa_levels();

  const BackendInfo& info() const override { return info_; }
  CacheType resolve_cache_type(CacheType type, const char* flag) const override;
  BackendMemory memory(std::int64_t n_prompt, std::int64_t score_rows) const override;
  std::size_t available_memory() const override { return available_memory_bytes(); }
  std::vector<NodePlan> nodes(const MemoryPlan& memory) const override;
  std::size_t cache_row_bytes(const CacheFormat& format) const override;
  void load(const ModelTensors& tensors, const std::function<void(const TensorView&)>& packed,
            RunControl& control) override;

  std::unique_ptr<Hidden> embed(std::span<const std::int32_t> tokens, std::vector<std::int32_t> positions,
                                RunControl& control) override;
  std::unique_ptr<LayerState> begin_layer(int layer, const Hidden& x, const ScoreNeeds& needs,
                                          RunControl& control) override;
  void finish_layer(int layer, Hidden& x, const LayerState& state, const Selection* next, RunControl& control) override;
  void logits(const Hidden& x, std::int64_t rows, float* out, RunControl& control) override;
  std::vector<float> read_last(const Hidden& x) override;
  void gather(Hidden& x, const Selection& rows) override;

  std::unique_ptr<Scores> column_scores(int layer, const LayerState& state, const ColumnScores& wanted,
                                        RunControl& control) override;
  std::unique_ptr<Scores> last_row_logits(int layer, const LayerState& state, RunControl& control) override;
  std::unique_ptr<Scores> pool(const Scores& scores, Pooling pooling, const PoolWidth& width) override;
  std::unique_ptr<Scores> reduce_heads(const Scores& scores, int groups, GroupReduce reduce) override;
  std::unique_ptr<Selection> top_k(const Scores& scores, std::int64_t n, const std::vector<std::int64_t>& k,
                                   std::int64_t first, std::int64_t last) override;
  std::unique_ptr<Selection> select_ends(std::int64_t n, std::int64_t first, std::int64_t last, int heads) override;
  std::unique_ptr<Selection> repeat(const Selection& selection, int heads) override;
  std::vector<std::int32_t> read(const Selection& selection, int head) override;
  std::vector<float> read(const Scores& scores) override;
  double coverage(const Scores& raw, const Selection& keep, std::int64_t rows) override;

  std::unique_ptr<LayerCache> store(const LayerState& state, const Selection& keep, const CacheFormat& format,
                                    RunControl& control) override;
  void decode_step(std::span<const SequenceStep> sequences, const StepOutput& out, RunControl& control) override;
  StageTimes take_stage_times() override;

 private:
  /// Work space of one thread for a batch of rows.
  struct OwnSpace {
    WideSpace wide;
    AttentionTile attention;
    Array<float> attended;  ///< [rows of an attention item][its heads · d]
    Array<float> row;       ///< [D]
  };
  /// Work space of a batch of at most `rows` rows.
  struct Space {
    std::int64_t rows = 0;
    std::size_t panel_bytes = 0, out_floats = 0;  ///< of each thread's WideSpace
    RowTile input;                                ///< [rows, D]: norm(x)
    RowTile hidden;                               ///< [rows, max(H·d, F)]: what attention gives; silu(gate) ∘ up
    Array<float> q;                               ///< [rows, H·d]
    std::vector<std::unique_ptr<OwnSpace>> own;   ///< [threads]
  };

  /// Rows that pass a layer together, of n.
  std::int64_t batch_rows(std::int64_t n) const;
  std::int64_t attention_rows(std::int64_t rows) const;
  Space space_for(std::int64_t rows) const;  ///< sizes only
  std::size_t space_bytes(std::int64_t rows) const;
  void make_space(std::int64_t rows);
  /// Memory for K and V of a layer whose rows are x: what the layer before had, if it had as many.
  LayerKv take_layer_kv(const CpuHidden& x, const ScoreNeeds& needs) const;
  /// Inside ThreadTeam::run: the space's input = norm(x [m, D]); no barrier.
  void normalise(int thread, SharedWork& work, const float* x, std::int64_t m, const std::vector<float>& weight);
  void finish_narrow(const LayerWeights& layer, CpuHidden& x, const CpuLayerState& state,
                     const std::vector<std::int32_t>& rows, RunControl& control);
  void finish_wide(const LayerWeights& layer, CpuHidden& x, const CpuLayerState& state,
                   const std::vector<std::int32_t>* rows, RunControl& control);
  /// The rest of a layer for rows [begin, begin + m) of x; `limits` [m] as AttentionTile::run's.
  void finish_rows(const LayerWeights& layer, CpuHidden& x, std::int64_t begin, std::int64_t m,
                   const CpuLayerState& state, const std::int32_t* limits, RunControl& control);
  void rope_table(const std::vector<std::int32_t>& positions, float* cos_sin) const;

  ModelConfig config_;
  BackendInfo info_;
  Arithmetic arithmetic_;         ///< of the prompt
  Arithmetic decode_arithmetic_;  ///< of decode_step: the same unless --compute chose by itself
  AttentionShape shape_;
  HugePages huge_pages_;
  bool lock_weights_ = false;
  bool keep_panels_ = false;
  int tile_rows_ = 0;
  std::size_t weight_bytes_ = 0, decode_bytes_ = 0, largest_tensor_ = 0;
  std::size_t kept_panel_bytes_ = 0;  ///< of all layers, at most
  TeamPlans plans_;
  Placement placement_;
  std::shared_ptr<ThreadTeam> team_batch_, team_;  ///< prompt, generation; the same if the counts are
  Weights weights_;
  std::unique_ptr<Space> space_;                      ///< grows
  std::optional<StageClocks> clocks_batch_, clocks_;  ///< of team_batch_ and team_
  std::chrono::steady_clock::time_point times_taken_;
  std::shared_ptr<ScoreMemory> score_memory_ = std::make_shared<ScoreMemory>();
  std::unique_ptr<NarrowLayer> narrow_;  ///< of the last decode step, for as many rows
  std::unique_ptr<DecodeAttention> attention_;
  std::vector<float> logits_;  ///< of a decode step, where its caller wants fewer
};

}  // namespace fastkv::cpu
