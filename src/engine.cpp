// The path of a run on one screen: open → plan → load → prefill → decode. Read this first.
#include "fastkv/engine.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <mutex>
#include <numeric>

#include "backend/backend.hpp"
#include "cache/kv_cache.hpp"
#include "core/check.hpp"
#include "decode/sampler.hpp"
#include "engine_plan.hpp"
#include "model/gguf.hpp"
#include "model/llama.hpp"
#include "model/vocab.hpp"
#include "prefill/prefill.hpp"
#include "runtime/memory.hpp"
#include "text/tokenizer_impl.hpp"

namespace fastkv {
namespace {

class Clock {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A RunControl that reports progress of one stage at most every 50 ms.
struct StageControl : RunControl {
  StageControl(const Callbacks& callbacks, Progress::Stage stage, double total_work, std::int64_t total) {
    stop = callbacks.stop;
    progress.stage = stage;
    progress.total = total;
    on_poll = [this, &callbacks, total_work](double done) {
      const double now = clock.ms();
      if (elapsed) *elapsed = now;
      if (now - reported < 50 || !callbacks.on_progress) return;
      reported = now;
      progress.fraction = std::min(1.0, done / total_work);
      progress.processed = std::int64_t(progress.fraction * double(progress.total));
      progress.time_ms = now;
      callbacks.on_progress(progress);
    };
  }
  Clock clock;
  Progress progress{};
  double reported = 0;
  double* elapsed = nullptr;  // kept up to date, so that a cancelled run has its timings
};

void check_tokens(const char* what, std::span<const std::int32_t> tokens, int vocab) {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    check(tokens[i] >= 0 && tokens[i] < vocab, ErrorCode::bad_input, what, " token ", i, ": expected an id in 0..",
          vocab - 1, ", found ", tokens[i]);
}

// log softmax(logits)[token], summed in double.
TokenScore score_of(std::span<const float> logits, std::int32_t token) {
  const auto best = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(double(logit) - double(*best));
  return {double(logits[std::size_t(token)]) - double(*best) - std::log(sum), best - logits.begin() == token};
}

// The 32 best [id, logit], best first; ties to the lower id.
std::vector<std::pair<std::int32_t, float>> best_logits(std::span<const float> logits) {
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto n = std::ptrdiff_t(std::min<std::size_t>(32, ids.size()));
  std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[std::size_t(a)] != logits[std::size_t(b)] ? logits[std::size_t(a)] > logits[std::size_t(b)] : a < b;
  });
  std::vector<std::pair<std::int32_t, float>> best;
  for (std::ptrdiff_t i = 0; i < n; ++i)
    best.emplace_back(ids[std::size_t(i)], logits[std::size_t(ids[std::size_t(i)])]);
  return best;
}

}  // namespace

struct Engine::Impl {
  explicit Impl(const EngineOptions& o)
      : options(o),
        file(GgufFile::open(o.model, o.load_mode == LoadMode::none ? FileAccess::read : FileAccess::map)),
        config(read_config(file)),
        tensors(read_tensors(file, config)),
        tokenizer(make_tokenizer(read_vocab(file))),
        backend(make_backend(o, config, tensors)) {
    describe();
  }

  void describe();
  WeightState weights() const { return {loaded, options.load_mode == LoadMode::none ? file.size() : 0}; }
  RunPlan plan(std::int64_t n_prompt, const RunOptions& run) const {
    return make_plan(*backend, config, n_prompt, run, weights());
  }
  void check_memory(const RunPlan& wanted, const RunOptions& run) const {
    const MemoryPlan& memory = wanted.memory;
    if (memory.peak() <= memory.available) return;
    const std::int64_t longest = longest_prompt(*backend, config, wanted.n_prompt, run, weights());
    fail(ErrorCode::out_of_memory, "the run needs ", memory.peak() >> 20, " MiB, available are ",
         memory.available >> 20, " MiB: ",
         longest > 0 ? concat("a prompt of ", longest, " tokens would fit") : "no prompt would fit");
  }

  EngineOptions options;
  GgufFile file;
  ModelConfig config;
  ModelTensors tensors;
  Tokenizer tokenizer;
  std::unique_ptr<Backend> backend;
  EngineInfo info;
  bool loaded = false;
  std::mutex running;
};

void Engine::Impl::describe() {
  const BackendInfo& machine = backend->info();
  info.model_name = config.name.empty() ? std::filesystem::path(options.model).stem().string() : config.name;
  info.file_bytes = file.size();
  double bytes_of_type[64] = {};
  for (const GgufTensor& t : file.tensors()) {
    info.n_params += t.dims[0] * t.dims[1] * t.dims[2] * t.dims[3];
    info.tensor_bytes += t.data.size();
    if (t.n_dims > 1 && t.ggml_type < 64) bytes_of_type[t.ggml_type] += double(t.data.size());
  }
  const auto most = std::uint32_t(std::max_element(std::begin(bytes_of_type), std::end(bytes_of_type)) - bytes_of_type);
  const double millions = double(info.n_params) / 1e6;
  info.model_type = concat(config.architecture, ' ',
                           millions < 1000 ? concat(std::int64_t(millions + 0.5), 'M')
                                           : concat(double(std::int64_t(millions / 100 + 0.5)) / 10, 'B'),
                           ' ', ggml_type_name(most));
  info.n_layer = config.n_layer;
  info.n_head = config.n_head;
  info.n_head_kv = config.n_head_kv;
  info.head_dim = config.head_dim;
  info.n_embd = config.n_embd;
  info.n_ff = config.n_ff;
  info.n_vocab = config.n_vocab;
  info.n_ctx_train = config.n_ctx_train;
  info.device = machine.device;
  info.isa = machine.isa;
  info.compute = machine.compute;
  info.decode_compute = machine.decode_compute;
  info.attention = machine.attention;
  info.gemm = machine.gemm;
  info.threads = machine.threads;
  info.threads_batch = machine.threads_batch;
  info.threads_reason = machine.threads_reason;
  info.numa = machine.numa;
}

Engine::Engine(const EngineOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

const EngineInfo& Engine::info() const { return impl_->info; }
const Tokenizer& Engine::tokenizer() const { return impl_->tokenizer; }

RunPlan Engine::plan(std::int64_t n_prompt, const RunOptions& options) const { return impl_->plan(n_prompt, options); }

void Engine::load(const Callbacks& callbacks) {
  const std::scoped_lock lock(impl_->running);
  if (impl_->loaded) return;
  StageControl control(callbacks, Progress::Stage::load, double(impl_->file.size()), std::int64_t(impl_->file.size()));
  impl_->backend->load(
      impl_->tensors,
      [&](const TensorView& t) {
        impl_->file.release({t.data, t.bytes()});
      },
      control);
  impl_->loaded = true;
}

RunResult Engine::run(std::span<const std::int32_t> prompt, const RunOptions& options, const Callbacks& callbacks) {
  load(callbacks);
  const std::scoped_lock lock(impl_->running);
  Backend& backend = *impl_->backend;
  const int vocab = impl_->config.n_vocab;
  RunResult result;
  RunStats own;
  RunStats& stats = callbacks.stats ? *callbacks.stats : own;
  stats = {};

  // plan
  result.plan = impl_->plan(std::int64_t(prompt.size()), options);
  const RunPlan& plan = result.plan;
  check_tokens("prompt", prompt, vocab);
  check_tokens("continuation", options.continuation, vocab);
  if (!options.force) impl_->check_memory(plan, options);
  Sampler sampler(options.sampling, vocab);
  if (options.sampling.ignore_eos) sampler.suppress(impl_->tokenizer.end_of_generation_ids());
  stats.n_prompt = plan.n_prompt;
  stats.seed = sampler.seed();
  stats.cache_bytes_full = plan.cache_bytes_full;

  // prefill
  StageControl prefill_control(callbacks, Progress::Stage::prefill, plan.prefill_flops, plan.n_prompt);
  prefill_control.elapsed = &stats.prefill_ms;
  const CacheFormat format{plan.cache_k, plan.cache_v, reserved_rows(plan, options)};
  Prefill filled = prefill(
      backend, impl_->config, plan, prompt,
      {format, options.record_trace, options.all_logits, options.record_hidden, options.score_rows},
      [&](int layer) { prefill_control.progress.layer = layer; }, prefill_control);
  stats.prefill_ms = prefill_control.clock.ms();
  stats.cache_bytes = filled.cache.bytes();
  stats.token_layers = filled.token_layers;
  stats.prefill_layers = std::move(filled.layer_times);
  stats.prefill_ends = filled.end_times;
  double coverage = 0;
  for (const LayerTrace& layer : filled.trace.layers) {
    stats.layer_coverage.push_back(layer.coverage);
    coverage += layer.coverage.value_or(0);
  }
  if (filled.trace.layers[0].coverage) stats.coverage = coverage / double(filled.trace.layers.size());

  // the last token's logits choose the first token
  std::vector<float> logits(filled.logits.end() - vocab, filled.logits.end());
  result.hidden = std::move(filled.hidden);
  result.layer_scores = std::move(filled.scores);
  if (options.all_logits) result.all_logits = std::move(filled.logits);
  if (options.record_trace) {
    result.trace = std::move(filled.trace);
    result.trace.first_logits = best_logits(logits);
    result.trace.next_position = filled.cache.next_position;
    for (const auto& layer : result.trace.layers)
      for (const auto& rows : layer.kept)
        result.trace.kv_bytes_f16 += rows.size() * std::size_t(impl_->config.head_dim) * 2 * sizeof(std::uint16_t);
  }

  // decode: tokens that are given, or sampled ones
  const bool given = !options.continuation.empty();
  const std::int64_t limit = generation_limit(plan, options);
  std::vector<std::int32_t> history(prompt.begin(), prompt.end());
  const bool best_only = !given && sampler.takes_best();  // logits then stay where they are computed
  std::int32_t best = -1;                                 // the next token, once a step has chosen it
  StageControl decode_control(callbacks, Progress::Stage::decode, double(std::max<std::int64_t>(limit, 1)), limit);
  result.finish = limit == tokens_asked(options) ? Finish::length : Finish::context_full;
  for (std::int64_t produced = 0; produced < limit; ++produced) {
    prefill_control.throw_if_stopped();
    const Clock sampling;
    const std::int32_t token = given       ? options.continuation[std::size_t(produced)]
                               : best >= 0 ? best
                                           : sampler.sample(logits, history);
    stats.sample_ms += sampling.ms();
    if (given) {
      result.scores.push_back(score_of(logits, token));
      if (options.step_logits) result.step_logits.insert(result.step_logits.end(), logits.begin(), logits.end());
    } else {
      if (!options.sampling.ignore_eos && impl_->tokenizer.is_end_of_generation(token)) {
        result.finish = Finish::end_of_generation;
        break;
      }
      result.tokens.push_back(token);
      history.push_back(token);
      if (callbacks.on_token && !callbacks.on_token(token, impl_->tokenizer.piece(token))) {
        result.finish = Finish::stopped_by_caller;
        break;
      }
    }
    if (produced + 1 == limit) break;
    const Clock step_clock;
    backend.take_stage_times();
    const SequenceStep step = filled.cache.step({&token, 1});
    const StepOutput out = best_only ? StepOutput{nullptr, &best, sampler.suppressed()} : StepOutput{logits.data()};
    backend.decode_step({&step, 1}, out, decode_control);
    filled.cache.advance(1);
    stats.decode_stages += backend.take_stage_times();
    stats.decode_ms += step_clock.ms();
    ++stats.n_decoded;
    decode_control.work = double(produced + 1);
    decode_control.poll();
  }
  stats.next_position = filled.cache.next_position;
  stats.peak_rss = peak_rss_bytes();
  result.stats = stats;
  return result;
}

}  // namespace fastkv
