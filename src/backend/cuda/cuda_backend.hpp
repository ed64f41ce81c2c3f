// The CUDA backend: one GPU, one stream; matrix products by cuBLASLt, everything else by the kernels beside this file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/decode_graph.hpp"
#include "backend/cuda/device.hpp"
#include "backend/cuda/gemm.hpp"
#include "backend/cuda/handles.hpp"
#include "backend/cuda/kernels/attention.hpp"
#include "backend/cuda/kernels/decode.hpp"
#include "backend/cuda/layer_cache.hpp"
#include "backend/cuda/stage_timer.hpp"
#include "backend/cuda/weights.hpp"

namespace fastkv::cuda {

/// One line for each device of this machine, or one that says why there is none.
std::string devices();

/// Steps of decode run as a graph, or kernel by kernel: for the comparison of both.
enum class DecodeBy { graph, launches };

class CudaBackend final : public Backend {
 public:
  /// Throws Error: unsupported (no device, driver too old, head size), invalid_option.
  CudaBackend(const EngineOptions& options, const ModelConfig& config, const ModelTensors& tensors,
              DecodeBy decode_by = DecodeBy::graph);

  const BackendInfo& info() const override { return info_; }
  CacheType resolve_cache_type(CacheType type, const char* flag) const override;
  BackendMemory memory(std::int64_t n_prompt, std::int64_t score_rows) const override;
  std::size_t available_memory() const override;
  std::vector<NodePlan> nodes(const MemoryPlan&) const override { return {}; }
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
  StageTimes take_stage_times() override { return timer_.take(); }

 private:
  /// Activations of a batch of at most `rows` rows.
  struct Space {
    std::int64_t rows = 0;
    DeviceArray<bf16> normed;  ///< [rows, D] norm(x)
    DeviceBuffer wide;         ///< one after another: keys and values; queries, plain and rotated; gate and up
    DeviceArray<bf16> hidden;  ///< [rows, max(H·d, F)] what attention gives; silu(gate) ∘ up
  };
  /// Activations of one generated token.
  struct TokenSpace {
    DeviceArray<StepState> state;
    StepState known = {};        ///< what `state` holds
    DeviceArray<float> x;        ///< [D] residual stream
    DeviceArray<float2> angles;  ///< [d/2] of its position
    DeviceArray<float> qkv;      ///< [H·d + 2·K·d]
    DeviceArray<bf16> hidden;    ///< [max(H·d, F)]
    DeviceArray<float> logits;   ///< [V]
    DeviceArray<std::int32_t> best, banned;
    std::vector<std::int32_t> host_banned;
    DeviceBuffer ranking;     ///< of arg_max()
    DeviceBuffer partial;     ///< of attention_decode(), grows
    std::uint64_t place = 0;  ///< another number: some of these lie elsewhere
  };
  enum class Result { none, logits, best };  ///< of a token of decode

  /// Rows that pass a layer together, of n.
  std::int64_t batch_rows(std::int64_t n) const;
  std::size_t wide_bytes(std::int64_t rows) const;
  std::size_t space_bytes(std::int64_t rows) const;
  std::size_t token_bytes(std::int64_t capacity) const;
  std::size_t score_bytes(std::int64_t rows, std::int64_t n) const;
  void make_space(std::int64_t rows);
  /// What the space's `wide` holds: keys and values [rows][2·K·d], or queries [rows][H·d], as they are multiplied.
  float* projected() const { return static_cast<float*>(space_.wide.data()); }
  /// [rows][H·d], behind projected queries.
  f16* rotated() const { return reinterpret_cast<f16*>(projected() + space_.rows * config_.q_dim()); }
  bf16* gates() const { return static_cast<bf16*>(space_.wide.data()); }  ///< [rows][2·F]
  void make_rope(CudaHidden& x) const;
  /// The space's normed rows = norm(x[first .. first + m)).
  void normalise(const float* weight, const float* x, std::int64_t first, std::int64_t m);
  /// Rotated queries of rows [first, first + m) of x, whose norms are `normed`, to `q`.
  void queries(const LayerWeights& weights, const CudaHidden& x, std::int64_t first, std::int64_t m, const bf16* normed,
               f16* q);
  /// The rest of a layer for rows [first, first + m) of x, of which the state has the queries of all but the first
  /// `fresh`; `original`: their rows in the state, null: the same.
  void finish_rows(const LayerWeights& weights, CudaHidden& x, std::int64_t first, std::int64_t m, std::int64_t fresh,
                   const CudaLayerState& state, const std::int32_t* original);
  void gather_hidden(CudaHidden& x, const CudaSelection& selection) const;
  /// Offsets of `counts` rows each, which end in the layer's `last`, and room for them.
  std::unique_ptr<CudaSelection> empty_selection(std::vector<std::int32_t> counts, std::int64_t last) const;
  std::unique_ptr<CudaScores> empty_scores(int heads, std::int64_t n) const;

  void make_token_space(const SequenceStep& sequence, std::span<const std::int32_t> banned);
  void decode_token(const SequenceStep& sequence, const StepState& state, Result result);
  void decode_layer(const LayerWeights& weights, const CudaLayerCache& cache);
  void give_token(const SequenceStep& sequence, Result result);

  ModelConfig config_;
  AttentionShape shape_;
  BackendInfo info_;
  DecodeBy decode_by_;
  bool keep_codes_ = false;
  int tile_rows_ = 0, load_threads_ = 1;
  std::size_t device_memory_;  ///< of the whole device, and proof that there is one: before the stream
  Weights plan_;               ///< sizes only
  Stream stream_;
  Gemm gemm_;
  StageTimer timer_;
  Pace pace_;
  DeviceArray<double> inv_freq_;  ///< [d/2]
  Weights weights_;
  Space space_;  ///< grows
  TokenSpace token_;
  DecodeGraph graph_;
};

}  // namespace fastkv::cuda
