// The seam between the method and the machine: half-layers on device-resident rows, and whole decode steps.
//
// Everything above (prefill, cache, decode) is written once against this file; everything below (cpu, cuda) knows no
// method. Handles own device memory; nobody above looks inside. Symbols as in spec/methods.md 0: n rows of width D
// enter a layer, H query heads, K key/value heads, G = H/K, head dimension d.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/model_desc.hpp"
#include "fastkv/options.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

/// Lets a long operation report work and be stopped. Operations call work() from any thread and poll() from the
/// calling thread, at least every tenth of a second.
struct RunControl {
  std::atomic<double> work{0};  ///< FLOPs (prefill, decode) or bytes (load) done so far
  const std::atomic<bool>* stop = nullptr;
  std::function<void(double work)> on_poll;  ///< calling thread only

  bool stopping() const { return stop && stop->load(std::memory_order_relaxed); }
  void add_work(double amount) { work.fetch_add(amount, std::memory_order_relaxed); }
  void poll() const {
    if (on_poll) on_poll(work.load(std::memory_order_relaxed));
  }
  void throw_if_stopped() const;  ///< Error cancelled
};

/// Rows of the residual stream, float32 [n, D], each with its original position (its RoPE angle).
class Hidden {
 public:
  virtual ~Hidden() = default;
  virtual std::int64_t n() const = 0;
  virtual std::vector<std::int32_t> positions() const = 0;  ///< [n] ascending, on the host
};

/// K (rotated) and V of all rows that entered a layer, [K][n][d] each, and what its scores need.
class LayerState {
 public:
  virtual ~LayerState() = default;
  std::int64_t n = 0;
};

/// What begin_layer is to leave for the scores of a layer.
struct ScoreNeeds {
  std::int64_t rows = 0;   ///< the last `rows` query rows are kept for scores; 0: no scores
  bool keys_only = false;  ///< nothing but scores follows: no values, no finish_layer() (S4)
};

/// Sums over query rows of the attention that they pay to each key.
struct ColumnScores {
  std::int64_t rows;              ///< the last `rows` query rows
  std::int64_t drop;              ///< columns from n − drop on are dropped after the softmax
  double last_weight = 1;         ///< rows weigh from 1 (the first) to this (the last), linearly
  std::int64_t causal_rows = -1;  ///< only the last so many rows are causal, earlier ones see every key; −1: all are
};

/// Neighbours that share a row's score when scores are pooled: so many rows before it, so many after it.
struct PoolWidth {
  std::int64_t before, after;
};

/// float32 [heads, n] on the device.
class Scores {
 public:
  virtual ~Scores() = default;
  int heads = 0;
  std::int64_t n = 0;
};

/// Rows chosen per head, ascending row indices into a layer's n rows; ragged.
class Selection {
 public:
  virtual ~Selection() = default;
  int heads = 0;
};

/// K and V rows kept of one layer, per stored head, ragged, with room for generated tokens; appended by decode_step.
class LayerCache {
 public:
  virtual ~LayerCache() = default;
  virtual std::int64_t length(int head) const = 0;
  virtual std::size_t bytes() const = 0;  ///< of the rows now stored
  /// Row `row` of stored head `head` as float32 [d], for tests.
  virtual void read_row(int head, std::int64_t row, float* key, float* value) const = 0;

  std::int64_t appended() const { return appended_; }  ///< rows that decode has added to every head
  /// Makes room for `rows` more per head, growing when the reserve is used up; they are then written by the backend.
  void append(std::int64_t rows);
  void truncate(std::int64_t appended);  ///< keep only the first `appended` rows added by decode

 protected:
  /// Makes `reserve_` this many rows per head beyond the prompt's; those that are there stay.
  virtual void allocate(std::int64_t reserve) = 0;
  std::int64_t reserve_ = 0;

 private:
  std::int64_t appended_ = 0;
};

struct CacheFormat {
  CacheType k = CacheType::f16, v = CacheType::f16;  ///< resolved, not automatic
  std::int64_t reserve = 0;                          ///< rows that decode will append
};

/// One sequence of a decode step: `tokens` are appended at first_position, first_position + 1, … and attend to the
/// cache and to one another causally.
struct SequenceStep {
  std::span<const std::unique_ptr<LayerCache>> layers;  ///< [N]
  std::span<const std::int32_t> tokens;
  std::int64_t first_position = 0;
};

/// What a decode step leaves on the host: either, or both. With `best` alone a device copies nothing but ids.
struct StepOutput {
  float* logits = nullptr;                    ///< [sequences, V] of each one's last token
  std::int32_t* best = nullptr;               ///< [sequences] the token of the largest logit; ties: the lowest id
  std::span<const std::int32_t> banned = {};  ///< never best
};

/// Bytes a backend will take, for the memory plan.
struct BackendMemory {
  std::size_t weights = 0;         ///< resident
  std::size_t decode_weights = 0;  ///< of these, what every decode step reads
  std::size_t hidden = 0;          ///< for n prompt rows
  std::size_t layer_kv = 0;        ///< for n rows of one layer
  std::size_t scratch = 0;         ///< panels, tiles, logits
  std::size_t load_extra = 0;      ///< above weights while loading
  bool on_host = true;             ///< in the memory that the file and copies for the caller take too
};

struct BackendInfo {
  std::string device;  ///< the GPU's name; empty: the CPU
  std::string isa, compute, decode_compute, attention, gemm, threads_reason, numa;
  int threads = 0, threads_batch = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual const BackendInfo& info() const = 0;
  /// The cache type that CacheType::automatic means, or `type` itself if the head size allows it (invalid_option).
  virtual CacheType resolve_cache_type(CacheType type, const char* flag) const = 0;
  /// Bytes for a prompt of n rows of which the last `score_rows` score a layer's keys; needs no load().
  virtual BackendMemory memory(std::int64_t n_prompt, std::int64_t score_rows) const = 0;
  /// Bytes that the device, or the machine or cgroup, has left for what memory() counts.
  virtual std::size_t available_memory() const = 0;
  /// Where `memory` lies on a machine with several memory nodes; empty where nothing is placed.
  virtual std::vector<NodePlan> nodes(const MemoryPlan& memory) const = 0;
  /// Bytes of a cache row of one stored head, K and V together.
  virtual std::size_t cache_row_bytes(const CacheFormat& format) const = 0;

  /// Packs the weights, tensor by tensor; `packed` (may be empty) is called for each that is no longer needed in the
  /// file. `work` counts file bytes.
  virtual void load(const ModelTensors& tensors, const std::function<void(const TensorView&)>& packed,
                    RunControl& control) = 0;

  // ---- prefill -----------------------------------------------------------------------------------------------------
  /// x = token embeddings [n, D]; row i has position positions[i].
  virtual std::unique_ptr<Hidden> embed(std::span<const std::int32_t> tokens, std::vector<std::int32_t> positions,
                                        RunControl& control) = 0;
  /// norm, K = rope(x·Wk), V = x·Wv for all rows; q of the last needs.rows rows. No V if needs.keys_only.
  virtual std::unique_ptr<LayerState> begin_layer(int layer, const Hidden& x, const ScoreNeeds& needs,
                                                  RunControl& control) = 0;
  /// The rest of the layer, in place: q, causal attention over the state's rows, o_proj, residual, norm, MLP, residual.
  /// `next` (one head; null: all rows): only these rows are computed and remain in x (shortcuts S1, S2); a row attends
  /// to the state's rows up to its own original index.
  virtual void finish_layer(int layer, Hidden& x, const LayerState& state, const Selection* next,
                            RunControl& control) = 0;
  /// logits [rows, V] of the last `rows` rows of x: final norm, output head.
  virtual void logits(const Hidden& x, std::int64_t rows, float* out, RunControl& control) = 0;
  /// The last row of x, [D], on the host.
  virtual std::vector<float> read_last(const Hidden& x) = 0;
  /// Keeps only `rows` (one head) of x: for methods run with shortcuts off.
  virtual void gather(Hidden& x, const Selection& rows) = 0;

  // ---- scores and selection ----------------------------------------------------------------------------------------
  /// S[h, j] = Σ over the query rows of weight · softmax over all columns that the row sees (spec/methods.md 0.2, 2.5,
  /// 2.7); [H, n − drop]. Never an n x n matrix: many rows are summed in tiles, in two passes (S10).
  virtual std::unique_ptr<Scores> column_scores(int layer, const LayerState& state, const ColumnScores& wanted,
                                                RunControl& control) = 0;
  /// q·k of the last query row with every key, unscaled: [H, n] (2.6).
  virtual std::unique_ptr<Scores> last_row_logits(int layer, const LayerState& state, RunControl& control) = 0;
  /// P: pooling along each head (0.3): P[h, j] = max (or sum / (before + after + 1)) of S[h, j − after .. j + before].
  virtual std::unique_ptr<Scores> pool(const Scores& scores, Pooling pooling, const PoolWidth& width) = 0;
  /// Sums (or maxima) of each group of `heads / groups` consecutive heads: [groups, n].
  virtual std::unique_ptr<Scores> reduce_heads(const Scores& scores, int groups, GroupReduce reduce) = 0;
  /// Per head: the first `first` and the last `last` of n rows, and the best others by score, k in all, ascending; ties
  /// to the lower index. `k`: of each head, or one number for all. Scores cover rows 0 .. scores.n − 1; rows beyond
  /// must be within `last`.
  virtual std::unique_ptr<Selection> top_k(const Scores& scores, std::int64_t n, const std::vector<std::int64_t>& k,
                                           std::int64_t first, std::int64_t last) = 0;
  /// The first `first` and the last `last` of n rows, the same for each of `heads`; first + last ≤ n.
  virtual std::unique_ptr<Selection> select_ends(std::int64_t n, std::int64_t first, std::int64_t last, int heads) = 0;
  /// The rows of a selection of one head for each of `heads`.
  virtual std::unique_ptr<Selection> repeat(const Selection& selection, int heads) = 0;
  /// Row indices of one head of a selection, on the host.
  virtual std::vector<std::int32_t> read(const Selection& selection, int head) = 0;
  /// Raw scores [heads, n], on the host.
  virtual std::vector<float> read(const Scores& scores) = 0;
  /// Share of the `rows` scoring rows' attention mass that kept rows hold, mean over query heads: per head
  /// (Σ_{j kept, scored} S[h, j] + rows − Σ_j S[h, j]) / rows; head h reads selection head ⌊h·heads/H⌋.
  virtual double coverage(const Scores& raw, const Selection& keep, std::int64_t rows) = 0;

  // ---- cache and decode --------------------------------------------------------------------------------------------
  /// Rows of K and V per stored head, rounded once from float32. K stored heads: head k keeps row set k; H stored
  /// heads: head h keeps rows of key/value head ⌊h/G⌋.
  virtual std::unique_ptr<LayerCache> store(const LayerState& state, const Selection& keep, const CacheFormat& format,
                                            RunControl& control) = 0;
  /// All layers and the output head for every sequence. Throws Error internal if the best token is asked for and a
  /// logit is NaN or infinite.
  virtual void decode_step(std::span<const SequenceStep> sequences, const StepOutput& out, RunControl& control) = 0;

  /// Where the time since the last call went.
  virtual StageTimes take_stage_times() = 0;
};

/// The backend `options.device` for a model of shape `config`. Throws Error (unsupported device, invalid_option).
/// `tensors` gives types and shapes only; weights come with load().
std::unique_ptr<Backend> make_backend(const EngineOptions& options, const ModelConfig& config,
                                      const ModelTensors& tensors);

/// The devices of this build and what they can do here, one line each, for --version.
std::string devices_text();

}  // namespace fastkv
