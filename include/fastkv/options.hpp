// What a caller may choose: the machine, the method, the sampling. Names and defaults: spec/cli.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fastkv {

enum class NumaMode { off, isolate, distribute, interleave, mirror, numactl, automatic };
enum class HugePages { automatic, off, thp };  ///< thp: an error where the kernel has none
enum class LoadMode { mmap, none, mlock };  ///< how the file is read while weights are packed; mlock pins the packed weights
enum class Compute { automatic, f32, bf16, int8 };
enum class Gemm { automatic, native, openblas };       ///< automatic: openblas for f32, native otherwise
enum class PrefillPanels { automatic, build, keep };   ///< keep: compute panels of all weights stay in memory
enum class CacheType { automatic, f32, f16, bf16, q8_0 };  ///< automatic: f32 for Compute::f32, else f16

/// The values' names on the command line.
const char* name(NumaMode mode);
const char* name(Compute compute);
const char* name(CacheType type);

/// The model and the machine; fixed for the life of an Engine.
struct EngineOptions {
  std::string model;                ///< path of a GGUF file
  int threads = 0;                  ///< generation; 0: chosen from affinity and cgroup
  int threads_batch = 0;            ///< prompt; 0: as threads
  std::vector<int> cpus;            ///< only these CPUs; empty: all allowed
  NumaMode numa = NumaMode::automatic;
  HugePages huge_pages = HugePages::automatic;
  Compute compute = Compute::automatic;
  Gemm gemm = Gemm::automatic;
  PrefillPanels panels = PrefillPanels::automatic;
  LoadMode load_mode = LoadMode::mmap;
  std::string isa;                  ///< empty: FASTKV_ISA or the best
  std::string device = "cpu";
  int tile_rows = 0;                ///< token rows that go through a layer together; 0: chosen from the prompt's length
};

enum class MethodName {
  full, fastkv, snapkv, streamingllm, h2o, gemfilter, pyramidinfer, headkv, pyramidkv, adakv, tova
};
enum class Pooling { max, avg };
enum class GroupReduce { sum, max };
enum class Granularity { query_head, kv_head };  ///< cache rows are chosen, and stored, per query or key/value head
enum class H2oMask { causal, reference };        ///< reference: as the authors' code, rows see their future

/// Every method, in the order of comparisons.
const std::vector<MethodName>& all_methods();

const char* name(MethodName method);
const char* name(Pooling pooling);
const char* name(GroupReduce reduce);
const char* name(Granularity granularity);
const char* name(H2oMask mask);

/// The method and its parameters as the user gave them; unset fields take the defaults of spec/cli.md when resolved
/// against a model and a prompt (prefill/plan.hpp).
struct MethodOptions {
  std::optional<MethodName> method;                ///< fastkv
  std::optional<int> tsp_layer;                    ///< N/2 − 1
  std::optional<double> tsp_rate;                  ///< 0.2; excludes tsp_tokens
  std::optional<std::int64_t> tsp_tokens;
  std::optional<double> retention;                 ///< 0.1; excludes kv_budget
  std::optional<std::int64_t> kv_budget;
  std::optional<int> window;                       ///< 8
  std::optional<int> tsp_window;                   ///< = window
  std::optional<int> tsp_shift;                    ///< 0: rows by which pooling for propagation leans to later tokens
  std::optional<int> kernel;                       ///< 7, odd
  std::optional<Pooling> pooling;                  ///< max
  std::optional<GroupReduce> group_reduce;         ///< sum
  std::optional<int> sinks;                        ///< 0; streamingllm: 4
  std::optional<Granularity> granularity;          ///< query_head
  std::optional<H2oMask> h2o_mask;                 ///< causal
  std::optional<int> filter_layer;                 ///< gemfilter: N/2 − 1
  std::optional<int> pyramid;                      ///< pyramidinfer: 35, 50 or 60, a named set of the next three
  std::optional<double> recent, delta, gamma;      ///< 0.2, 0.7, 1.2; exclude pyramid
  std::optional<std::string> head_budgets;         ///< headkv: path of a JSON table {"layer-head": [importance, …]}
  std::optional<int> min_prompt;                   ///< 1024; only when no field above but method is set
  bool shortcuts = true;                           ///< lossless shortcuts S1, S2 (spec/methods.md 4); off only for tests
};

/// Whether `method` reads the option spelled `flag` on the command line ("--window").
bool reads(MethodName method, std::string_view flag);
/// The options, by flag, that are set in `options`, other than --method and --min-prompt.
std::vector<std::string> given_flags(const MethodOptions& options);
/// `options` for `method`, without those that it does not read.
MethodOptions options_for(MethodName method, MethodOptions options);

/// Samplers in llama.cpp's order: penalties, top-k, top-p, min-p, temperature.
struct SamplingOptions {
  float temperature = 0.8f;        ///< 0: greedy
  int top_k = 40;                  ///< ≤ 0: off
  float top_p = 0.95f;
  float min_p = 0.05f;
  float repeat_penalty = 1.0f;
  int repeat_last_n = 64;          ///< −1: whole context
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::int64_t seed = -1;          ///< −1: random; the one used is in the statistics
  bool ignore_eos = false;
  std::vector<std::pair<std::int32_t, float>> logit_bias;
};

/// One run: a prompt under a method, then generation.
struct RunOptions {
  MethodOptions method;
  SamplingOptions sampling;
  int n_predict = -1;              ///< tokens to generate; −1: until end of generation or the context is full
  /// Tokens to feed, each scored, instead of generating any (n_predict and sampling then have no effect). Like generated
  /// tokens they meet the compressed cache.
  std::vector<std::int32_t> continuation;
  int context = 0;                 ///< 0: what the run needs, at most the trained context
  CacheType cache_k = CacheType::automatic;
  CacheType cache_v = CacheType::automatic;
  bool record_trace = false;       ///< keep the kept sets and the first logits in RunResult
  bool step_logits = false;        ///< keep the logits that each token of the continuation was scored by
  bool all_logits = false;         ///< keep logits of every prompt position [n, V] (full method only)
  bool record_hidden = false;      ///< keep the last prompt token's hidden state after each layer
  int score_rows = 0;              ///< keep what the last so many tokens attend to in each layer (full method only)
  bool force = false;              ///< run even if the memory plan exceeds what the machine has
};

}  // namespace fastkv
