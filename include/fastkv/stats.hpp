// What a run costs and did: the plan before it, the statistics and the decisions after it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fastkv/options.hpp"

namespace fastkv {

/// A method with every parameter resolved for one model and one prompt length, after defaults and clamps.
struct MethodParams {
  MethodName method = MethodName::full;
  bool proportional = true;          ///< budgets from retention and rates; false: kv_budget rows in every layer
  double retention = 0.1;            ///< r
  std::int64_t kv_budget = 0;        ///< C
  int tsp_layer = 0;                 ///< τ
  bool tsp_by_rate = true;           ///< T = int(L·ρ); false: tsp_tokens
  double tsp_rate = 0.2;             ///< ρ
  std::int64_t tsp_tokens = 0;       ///< T when not by rate
  int window = 8;                    ///< w
  int tsp_window = 8;
  int tsp_shift = 0;                 ///< propagation: a score is shared by κ//2 − shift rows before, κ//2 + shift after
  int kernel = 7;                    ///< κ
  Pooling pooling = Pooling::max;
  GroupReduce group_reduce = GroupReduce::sum;
  int sinks = 0;
  Granularity granularity = Granularity::kv_head;
  H2oMask h2o_mask = H2oMask::causal;
  int filter_layer = 0;              ///< f
  double recent = 0.2, delta = 0.7, gamma = 1.2;
  std::string head_budgets;          ///< path of the table below
  std::vector<double> head_shares;   ///< [N·H] a[ℓ, h], of all heads' budget; Σ = 1 (spec/methods.md 2.8)
  bool shortcuts = true;
};

/// Tokens of one layer, known before anything runs.
struct LayerPlan {
  std::int64_t tokens_in = 0;        ///< rows that enter the layer
  std::int64_t tokens_out = 0;       ///< rows that go on to the next; rows whose attention and MLP are computed
  std::int64_t kept = 0;             ///< cache rows per stored head; if ragged the mean, rounded up
  std::vector<std::int64_t> head_kept;  ///< [stored heads] cache rows of each, when they are known to differ
};

struct MemoryPlan {                  ///< bytes
  std::size_t weights = 0;           ///< packed, resident
  std::size_t cache = 0;             ///< K and V of all layers, prompt and generation
  std::size_t hidden = 0;            ///< residual stream of the prompt, at most
  std::size_t layer_kv = 0;          ///< K and V of one layer, uncompressed, with its compute panels
  std::size_t held = 0;              ///< the most of cache, hidden and layer_kv at once: layers fill the cache in turn
  std::size_t scratch = 0;           ///< weight panels, tiles of all threads, logits
  std::size_t file = 0;              ///< mapped file pages while packing (released tensor by tensor)
  std::size_t peak() const;          ///< the most that is held at once
  std::size_t available = 0;         ///< what the machine or the cgroup has left
};

/// What one memory node of several holds and does.
struct NodePlan {
  int node = 0;                      ///< the system's number
  std::string cpus;                  ///< of its threads, "0-3,8"
  int threads = 0, threads_batch = 0;
  int head_begin = 0, head_end = 0;  ///< key/value heads with cache rows here; the outer two may go on on a neighbour
  std::size_t weights = 0;           ///< bytes: its part, or its copy, of the packed weights
  std::size_t cache = 0;             ///< bytes: its part of the cache
  std::size_t work = 0;              ///< bytes: its threads' part of residual stream, layer K and V, scratch
};

/// Everything decided before the first allocation.
struct RunPlan {
  MethodParams method;
  std::int64_t n_prompt = 0;
  std::int64_t context = 0;
  std::vector<LayerPlan> layers;             ///< [N]
  std::vector<LayerPlan> filter_layers;      ///< of a pass over the whole prompt that only chooses tokens; else empty
  int stored_heads = 0;                      ///< of each layer's cache: K, or H when chosen per query head
  std::vector<std::string> notes;            ///< clamps and warnings, one line each
  double prefill_flops = 0;                  ///< multiply-adds · 2 of the whole prefill
  std::size_t decode_weight_bytes = 0;       ///< packed weights that every generated token reads
  std::size_t cache_row_bytes = 0;           ///< that every generated token adds to the cache, all layers
  CacheType cache_k = CacheType::f16, cache_v = CacheType::f16;
  std::size_t cache_bytes_prompt = 0;        ///< bytes of the prompt's cache
  std::size_t cache_bytes_full = 0;          ///< the same under full
  MemoryPlan memory;
  std::vector<NodePlan> nodes;               ///< where --numa isolate, distribute or mirror place memory, else empty
};

struct LayerTrace {
  std::int64_t tokens_in = 0;
  std::vector<std::vector<std::int32_t>> kept;  ///< [stored heads] original positions, ascending
  std::optional<double> coverage;               ///< share of the scoring queries' attention mass on kept rows
};

/// What the run decided (spec/trace.md).
struct Trace {
  std::vector<LayerTrace> layers;
  std::optional<int> tsp_layer;
  std::vector<std::int32_t> tsp_kept;            ///< original positions of propagated tokens, ascending
  std::vector<std::int32_t> selected;            ///< gemfilter: positions of the prompt tokens that were kept
  std::int64_t next_position = 0;
  std::vector<std::pair<std::int32_t, float>> first_logits;  ///< 32 best [id, logit] for the first generated token
  std::size_t kv_bytes_f16 = 0;                  ///< the prompt's cache at 2 bytes a value
};

/// What the threads of a run do.
enum class Stage {
  unpack,     ///< weights from their packed form to the form the products take
  gemm,       ///< linear layers: matrix products, matrix-vector products in decode
  attention,
  scores,     ///< window scores, pooling, sums over heads
  selection,  ///< top-k
  store,      ///< rows into the cache
  rest,       ///< norms, RoPE, quantising, SwiGLU, embedding, gathers
  wait,       ///< at barriers, for the slowest thread, and what no stage claims
};
inline constexpr int kStages = 8;
const char* name(Stage stage);

/// Milliseconds per stage, mean over the threads: they add up to the wall-clock time.
struct StageTimes {
  double ms[kStages] = {};
  double& operator[](Stage stage) { return ms[int(stage)]; }
  double operator[](Stage stage) const { return ms[int(stage)]; }
  double total() const;
  StageTimes& operator+=(const StageTimes& other);
};

struct RunStats {
  double prefill_ms = 0, sample_ms = 0, decode_ms = 0;
  std::int64_t n_prompt = 0;
  std::int64_t n_decoded = 0;                    ///< decode steps run (generated tokens − 1, or less)
  std::int64_t token_layers = 0;                 ///< Σ over layers of rows whose attention and MLP were computed
  std::size_t cache_bytes = 0;                   ///< bytes really stored for the prompt
  std::size_t cache_bytes_full = 0;
  std::optional<double> coverage;                ///< mean over layers
  std::vector<std::optional<double>> layer_coverage;  ///< [N]
  std::size_t peak_rss = 0;
  std::int64_t seed = 0;
  std::int64_t next_position = 0;
  std::vector<StageTimes> prefill_layers;        ///< [N]
  StageTimes prefill_ends;                       ///< embedding, output head
  StageTimes decode_stages;                      ///< of all decode steps
};

enum class Finish { length, end_of_generation, stopped_by_caller, context_full };

/// A token of RunOptions::continuation under the logits that preceded it.
struct TokenScore {
  double log_prob = 0;                           ///< natural logarithm
  bool best = false;                             ///< it has the highest logit (of equal ones: the lowest id)
};

struct RunResult {
  std::vector<std::int32_t> tokens;              ///< generated, without the end-of-generation token
  std::vector<TokenScore> scores;                ///< of RunOptions::continuation, token by token
  Finish finish = Finish::length;
  RunPlan plan;
  RunStats stats;
  Trace trace;                                   ///< filled if RunOptions::record_trace
  std::vector<float> step_logits;                ///< [scores, V] if RunOptions::step_logits
  std::vector<float> hidden;                     ///< [N, D] if RunOptions::record_hidden: of the residual stream
  /// [N, n_prompt − w] if RunOptions::score_rows = w: attention of the last w tokens to each earlier one, summed over
  /// them and the query heads (spec/methods.md 0.2); all columns of a layer and the last w's share add up to w·H.
  std::vector<float> layer_scores;
  std::vector<float> all_logits;                 ///< [n_prompt, V] if RunOptions::all_logits
};

}  // namespace fastkv
