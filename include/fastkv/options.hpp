// What a caller may choose: the machine, the method, the sampling. Names and defaults: spec/cli.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
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

enum class MethodName { full, fastkv };
enum class Pooling { max, avg };
enum class GroupReduce { sum, max };

const char* name(MethodName method);
const char* name(Pooling pooling);
const char* name(GroupReduce reduce);

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
  std::optional<int> kernel;                       ///< 7, odd
  std::optional<Pooling> pooling;                  ///< max
  std::optional<GroupReduce> group_reduce;         ///< sum
  std::optional<int> sinks;                        ///< 0
  std::optional<int> min_prompt;                   ///< 1024; only when no field above but method is set
  bool shortcuts = true;                           ///< lossless shortcuts S1, S2 (spec/methods.md 4); off only for tests
};

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
  int context = 0;                 ///< 0: what the run needs, at most the trained context
  CacheType cache_k = CacheType::automatic;
  CacheType cache_v = CacheType::automatic;
  bool record_trace = false;       ///< keep the kept sets and the first logits in RunResult
  bool all_logits = false;         ///< keep logits of every prompt position [n, V] (full method only)
  bool force = false;              ///< run even if the memory plan exceeds what the machine has
};

}  // namespace fastkv
