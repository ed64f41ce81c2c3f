// The engine: one model on one machine, and runs of prompts through it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fastkv/error.hpp"
#include "fastkv/options.hpp"
#include "fastkv/stats.hpp"
#include "fastkv/tokenizer.hpp"

namespace fastkv {

/// What the file and the machine offer, for headers of reports.
struct EngineInfo {
  std::string model_name;        ///< general.name or the file's name
  std::string model_type;        ///< "llama 1B Q4_0"
  std::uint64_t n_params = 0;
  std::size_t file_bytes = 0;
  std::size_t tensor_bytes = 0;  ///< of all tensors in the file
  int n_layer = 0, n_head = 0, n_head_kv = 0, head_dim = 0, n_embd = 0, n_ff = 0;
  int n_vocab = 0, n_ctx_train = 0;
  std::string device;            ///< the GPU's name; empty: the CPU
  std::string isa;               ///< "avx512_vnni", "sm_90"
  std::string compute;           ///< "int8", as resolved
  std::string decode_compute;    ///< of generated tokens; with --compute auto it may differ
  std::string attention;         ///< "f32", "bf16" or "f16 tensor cores": arithmetic of the prompt's attention
  std::string gemm;              ///< "native", "openblas SkylakeX" or "cublasLt 13.0.2"
  int threads = 0, threads_batch = 0;
  std::string threads_reason;    ///< why that many
  std::string numa;              ///< placement in words
};

struct Progress {
  enum class Stage { load, prefill, decode } stage;
  double fraction = 0;           ///< of the stage, 0..1, from work done (bytes or FLOPs)
  std::int64_t total = 0;        ///< tokens of the prompt (prefill) or to generate (decode); bytes (load)
  std::int64_t processed = 0;    ///< in the same unit
  int layer = 0;                 ///< prefill: layer at work
  double time_ms = 0;            ///< since the stage began
};

struct Callbacks {
  std::function<void(const Progress&)> on_progress;  ///< at most every 50 ms, from the calling thread
  /// Each generated token with the bytes it adds (may end inside a UTF-8 character); false stops the generation.
  std::function<bool(std::int32_t token, std::string_view bytes)> on_token;
  const std::atomic<bool>* stop = nullptr;           ///< polled everywhere; raised: Error cancelled within half a second
  /// The statistics so far, kept up to date, also when the run is cancelled.
  RunStats* stats = nullptr;
};

/// One model file, opened. Opening reads the header and the vocabulary only; load() packs the weights. After load() the
/// object is immutable: runs may follow one another; they are serialised, since each uses the whole machine.
class Engine {
 public:
  /// Throws Error: io, bad_file, unsupported; invalid_option for options that this machine or model cannot honour.
  explicit Engine(const EngineOptions& options);
  ~Engine();
  Engine(Engine&&) noexcept;

  const EngineInfo& info() const;
  const Tokenizer& tokenizer() const;

  /// What run() would do with a prompt of `n_prompt` tokens; allocates nothing, needs no load(). Throws invalid_option
  /// (wrong or conflicting method parameters) and context_exceeded.
  RunPlan plan(std::int64_t n_prompt, const RunOptions& options) const;

  /// Packs the weights into memory (once; later calls return at once). Progress and stop as in run().
  void load(const Callbacks& callbacks = {});

  /// Prefill of `prompt` (token ids), then generation. Throws as plan(), bad_input (empty, id outside the vocabulary),
  /// out_of_memory (plan above what is available, unless options.force), cancelled.
  RunResult run(std::span<const std::int32_t> prompt, const RunOptions& options, const Callbacks& callbacks = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Values of EngineOptions::device that this build has: "cpu", "cuda".
std::vector<std::string> device_names();

/// "fastkv 0.1.0 (commit, compiler, ISA levels of this CPU, OpenBLAS …)", several lines.
std::string version_text();

/// The commit this library was built from: "1a2b3c4", with "-dirty" for uncommitted changes.
std::string build_commit();

}  // namespace fastkv
