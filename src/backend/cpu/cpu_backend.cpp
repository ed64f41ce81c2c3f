// Setting up the CPU backend: kernels, threads, memory; and the operations that are one call below.
#include "backend/cpu/cpu_backend.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

bool is_quantised(DType type) { return type != DType::f32 && type != DType::f16 && type != DType::bf16; }

// Compute::automatic: what most of the weights are; with AMX bfloat16 for all but float32, as its tiles multiply
// bfloat16 at four times the rate of AVX-512's int8, more exactly, and without scales.
Compute resolve_compute(Compute wanted, const ModelTensors& tensors, simd::Isa isa) {
  if (wanted != Compute::automatic) return wanted;
  const Compute quantised = isa == simd::Isa::amx_bf16 ? Compute::bf16 : Compute::int8;
  std::map<Compute, double> weights;
  for (const LayerTensors& l : tensors.layers)
    for (const TensorView* t : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) {
      const Compute natural = is_quantised(t->type) ? quantised : t->type == DType::f32 ? Compute::f32 : Compute::bf16;
      weights[natural] += double(t->rows) * double(t->cols);
    }
  Compute best = Compute::f32;
  for (const auto& [compute, count] : weights)
    if (count > weights[best]) best = compute;
  return best;
}

// Decode reads each weight once a token: with int8 activations a quantised one costs less time than its bytes take to
// arrive, with float ones two to three times as much. An explicit --compute holds for both.
Compute resolve_decode_compute(Compute wanted, Compute prompt, const ModelTensors& tensors) {
  if (wanted != Compute::automatic || prompt == Compute::f32) return prompt;
  for (const LayerTensors& l : tensors.layers)
    for (const TensorView* t : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down})
      if (is_quantised(t->type)) return Compute::int8;
  return prompt;
}

template <class T>
const T& as(const auto& handle) {
  return static_cast<const T&>(handle);
}

}  // namespace

CpuBackend::CpuBackend(const EngineOptions& options, const ModelConfig& config, const ModelTensors& tensors,
                       const Topology& topology)
    : config_(config),
      shape_{config.n_head, config.n_head_kv, config.head_dim, config.attention_scale},
      huge_pages_(options.huge_pages),
      lock_weights_(options.load_mode == LoadMode::mlock),
      keep_panels_(options.panels == PrefillPanels::keep),
      tile_rows_(options.tile_rows) {
  check(config.head_dim % 8 == 0 && config.head_dim <= kMaxHeadDim, ErrorCode::unsupported, "head size ",
        config.head_dim, ": expected a multiple of 8 up to ", kMaxHeadDim);
  check(options.tile_rows >= 0 && options.tile_rows <= 4096, ErrorCode::invalid_option, "-ub ", options.tile_rows,
        ": expected 1..4096 token rows at once, or 0 to choose");
  check(options.huge_pages != HugePages::thp || huge_pages_offered(), ErrorCode::invalid_option,
        "--hugepages thp: expected always or madvise in /sys/kernel/mm/transparent_hugepage/enabled, found never");
  simd::Isa isa;
  char message[256];
  check(simd::choose_isa(options.isa.empty() ? nullptr : options.isa.c_str(), isa, message), ErrorCode::invalid_option,
        message);
  arithmetic_.kernels = &simd::kernels(isa);
  arithmetic_.compute = resolve_compute(options.compute, tensors, isa);
  check(options.gemm != Gemm::openblas || options.compute == Compute::f32 || arithmetic_.compute == Compute::f32 ||
            options.compute == Compute::automatic,
        ErrorCode::invalid_option, "--gemm openblas computes in float32: expected --compute f32, found ",
        name(options.compute));
  if (options.gemm == Gemm::openblas) arithmetic_.compute = Compute::f32;
  // Under int8, attention takes whichever dot products are faster here: with AMX bfloat16 ones; on Intel without it
  // they run at half the rate of float32 FMAs, and float32 made a prefill of 4,096 tokens 1.16 x as fast (1B shape,
  // Q4_0).
  arithmetic_.bf16_attention =
      arithmetic_.compute == Compute::bf16 ||
      (arithmetic_.compute == Compute::int8 &&
       (isa == simd::Isa::amx_bf16 || (isa == simd::Isa::avx512_bf16 && simd::fast_bf16_dots())));
  if (arithmetic_.compute == Compute::f32 && options.gemm != Gemm::native) arithmetic_.blas = &OpenBlas::load(isa);
  decode_arithmetic_ = arithmetic_;
  decode_arithmetic_.compute = resolve_decode_compute(options.compute, arithmetic_.compute, tensors);
  // a single row takes the vector instruction also where tiles are faster
  decode_arithmetic_.bf16_attention = arithmetic_.bf16_attention && simd::fast_bf16_dots();

  weight_bytes_ = Weights::packed_bytes(tensors);
  // an embedding table that is not the output head too gives one row a token
  decode_bytes_ = weight_bytes_ - (tensors.tied ? 0 : PackedTensor::packed_bytes(tensors.token_embd));
  largest_tensor_ = Weights::largest_tensor(tensors);
  // what one node would have to hold: the weights and the cache of the longest context
  const std::size_t cache_bytes = std::size_t(config.n_ctx_train) * std::size_t(config.n_layer) *
                                  std::size_t(config.n_head_kv) * cache_row_bytes({CacheType::f16, CacheType::f16, 0});
  plans_ = plan_teams(topology, options.threads, options.threads_batch, options.numa, options.cpus,
                      weight_bytes_ + cache_bytes);
  placement_ = Placement(plans_.decode);
  info_.threads_reason = plans_.decode.reason;
  if (plans_.batch.cpus.size() != plans_.decode.cpus.size())
    info_.threads_reason += concat("; prompt: ", plans_.batch.reason);
  info_.numa = describe_placement(topology, plans_.decode);
  const bool same = plans_.decode.cpus == plans_.batch.cpus;
  team_batch_ = std::make_shared<ThreadTeam>(plans_.batch);
  score_memory_->huge_pages = huge_pages_;
  team_ = same ? team_batch_ : std::make_shared<ThreadTeam>(plans_.decode);
  clocks_batch_.emplace(team_batch_->size());
  clocks_.emplace(team_->size());
  team_batch_->run([&](int) { bind_memory(plans_.batch); });
  if (!same) team_->run([&](int) { bind_memory(plans_.decode); });

  for (const LayerTensors& l : tensors.layers)
    for (const TensorView* t : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) {
      if (keep_panels_)
        kept_panel_bytes_ +=
            ComputePanels::bytes(arithmetic_, ceil_div(t->rows, simd::kLanes), round_up(t->cols, simd::kGroup));
    }

  info_.isa = simd::name(isa);
  info_.compute = name(arithmetic_.compute);
  info_.decode_compute = name(decode_arithmetic_.compute);
  info_.attention = arithmetic_.bf16_attention ? "bf16" : "f32";
  info_.gemm = arithmetic_.blas ? "openblas " + arithmetic_.blas->core() : "native";
  info_.threads = team_->size();
  info_.threads_batch = team_batch_->size();
}

std::string CpuBackend::isa_levels() {
  std::string levels;
  for (const simd::Isa isa : simd::kIsas)
    if (simd::supported(isa)) levels += concat(levels.empty() ? "" : " ", simd::name(isa));
  return levels;
}

CacheType CpuBackend::resolve_cache_type(CacheType type, const char* flag) const {
  if (type == CacheType::automatic) return arithmetic_.compute == Compute::f32 ? CacheType::f32 : CacheType::f16;
  check(type != CacheType::q8_0 || shape_.d % 32 == 0, ErrorCode::invalid_option, flag,
        " q8_0: expected a head size that is a multiple of 32, found ", shape_.d);
  return type;
}

BackendMemory CpuBackend::memory(std::int64_t n, std::int64_t score_rows) const {
  const std::size_t rows = std::size_t(n), d = std::size_t(shape_.d);
  BackendMemory m;
  m.weights = weight_bytes_ * std::size_t(placement_.copies());
  m.decode_weights = decode_bytes_;
  m.load_extra = largest_tensor_;
  m.hidden = rows * (std::size_t(config_.n_embd) + d) * sizeof(float);
  m.layer_kv = 2 * rows * std::size_t(config_.kv_dim()) * sizeof(float) + key_panel_bytes(arithmetic_, shape_, n) +
               value_panel_bytes(arithmetic_, shape_, n);
  m.scratch = kept_panel_bytes_ + space_bytes(batch_rows(n)) +
              NarrowLayer::bytes(decode_arithmetic_, config_, info_.threads, 1) +
              std::size_t(config_.n_vocab) * sizeof(float) +
              (score_rows ? score_bytes(shape_, info_.threads_batch, score_rows, n) : 0);
  return m;
}

std::vector<NodePlan> CpuBackend::nodes(const MemoryPlan& memory) const {
  return plan_nodes(plans_, memory, config_.n_head_kv);
}

std::size_t CpuBackend::cache_row_bytes(const CacheFormat& format) const {
  return simd::row_bytes(row_type(format.k), shape_.d) + simd::row_bytes(row_type(format.v), shape_.d);
}

void CpuBackend::load(const ModelTensors& tensors, const std::function<void(const TensorView&)>& packed,
                      RunControl& control) {
  weights_ = pack_weights(tensors, *team_batch_, placement_, huge_pages_, packed, control);
  if (keep_panels_) weights_.keep_panels(arithmetic_, *team_batch_, huge_pages_);
  if (lock_weights_) weights_.lock();
}

void CpuBackend::rope_table(const std::vector<std::int32_t>& positions, float* cos_sin) const {
  const std::size_t half = std::size_t(shape_.d) / 2;
  for (std::size_t i = 0; i < positions.size(); ++i)
    for (std::size_t j = 0; j < half; ++j) {
      const double angle = double(positions[i]) * config_.rope_inv_freq[j];  // double: positions reach 10^6
      cos_sin[(i * half + j) * 2] = float(std::cos(angle)) * config_.rope_magnitude;
      cos_sin[(i * half + j) * 2 + 1] = float(std::sin(angle)) * config_.rope_magnitude;
    }
}

std::unique_ptr<Hidden> CpuBackend::embed(std::span<const std::int32_t> tokens, std::vector<std::int32_t> positions,
                                          RunControl& control) {
  auto x = std::make_unique<CpuHidden>();
  const std::size_t n = tokens.size(), d = std::size_t(config_.n_embd);
  x->x = Array<float>(n * d, "residual stream", huge_pages_);
  x->cos_sin = Array<float>(n * std::size_t(shape_.d), "rotation table");
  x->original = std::move(positions);
  constexpr std::int64_t kRows = 64;
  SharedWork work(*team_batch_);
  team_batch_->run([&](int thread) {
    StageWatch& watch = (*clocks_batch_)[thread];
    watch.start();
    for (std::int64_t item; (item = work.next(thread, ceil_div(std::int64_t(n), kRows))) >= 0 && !control.stopping();) {
      const std::size_t begin = std::size_t(item * kRows), end = std::min(n, begin + kRows);
      for (std::size_t i = begin; i < end; ++i) weights_.token_embd.read_row(tokens[i], x->x.data() + i * d);
      rope_table({x->original.begin() + std::ptrdiff_t(begin), x->original.begin() + std::ptrdiff_t(end)},
                 x->cos_sin.data() + begin * std::size_t(shape_.d));
      if (thread == 0) control.poll();
    }
    watch.lap(Stage::rest);
  });
  control.throw_if_stopped();
  return x;
}

void CpuBackend::gather(Hidden& hidden, const Selection& selection) {
  auto& x = static_cast<CpuHidden&>(hidden);
  const auto& rows = as<CpuSelection>(selection).rows[0];
  const std::size_t width = std::size_t(config_.n_embd), d = std::size_t(shape_.d);
  Array<float> kept(rows.size() * width, "residual stream", huge_pages_), cos_sin(rows.size() * d, "rotation table");
  std::vector<std::int32_t> positions;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t from = std::size_t(rows[i]);
    std::memcpy(kept.data() + i * width, x.x.data() + from * width, width * sizeof(float));
    std::memcpy(cos_sin.data() + i * d, x.cos_sin.data() + from * d, d * sizeof(float));
    positions.push_back(x.original[from]);
  }
  x.x = std::move(kept);
  x.cos_sin = std::move(cos_sin);
  x.original = std::move(positions);
}

void CpuBackend::logits(const Hidden& hidden, std::int64_t rows, float* out, RunControl& control) {
  const auto& x = as<CpuHidden>(hidden);
  constexpr std::int64_t kRows = 32;  // share one read of the output head
  // Its rounding reaches the logits undamped: in int8 it made a quarter of the whole model's divergence from float32
  // (SmolLM2: KL 0.0027, with float32 activations here 0.0019), and it runs once a prompt, on weights as they are.
  Arithmetic exact = arithmetic_;
  if (arithmetic_.compute == Compute::int8) exact.compute = Compute::f32;
  const LinearUse use = arithmetic_.compute == Compute::int8 ? LinearUse::decode : LinearUse::prefill;
  const std::int64_t first = x.n() - rows, width = config_.n_embd;
  for (std::int64_t begin = 0; begin < rows; begin += kRows) {
    const std::int64_t m = std::min(kRows, rows - begin);
    NarrowLayer narrow(exact, config_, *team_batch_, *clocks_batch_, use, m);
    std::memcpy(narrow.x(), x.x.data() + (first + begin) * width, std::size_t(m * width) * sizeof(float));
    team_batch_->run([&](int thread) { narrow.output_head(thread, weights_, out + begin * config_.n_vocab, {}); });
    control.poll();
    control.throw_if_stopped();
  }
}

std::unique_ptr<Scores> CpuBackend::column_scores(int, const LayerState& state, const ColumnScores& wanted,
                                                  RunControl& control) {
  return clocks_batch_->whole(Stage::scores, [&] {
    return cpu::column_scores({arithmetic_, shape_, *team_batch_, control, score_memory_}, as<CpuLayerState>(state),
                              wanted);
  });
}
std::unique_ptr<Scores> CpuBackend::last_row_logits(int, const LayerState& state, RunControl& control) {
  return clocks_batch_->whole(Stage::scores, [&] {
    return cpu::last_row_logits({arithmetic_, shape_, *team_batch_, control, score_memory_}, as<CpuLayerState>(state));
  });
}
std::unique_ptr<Scores> CpuBackend::pool(const Scores& scores, Pooling pooling, const PoolWidth& width) {
  return clocks_batch_->whole(Stage::scores,
                              [&] { return cpu::pool(*team_batch_, as<CpuScores>(scores), pooling, width); });
}
std::unique_ptr<Scores> CpuBackend::reduce_heads(const Scores& scores, int groups, GroupReduce reduce) {
  return clocks_batch_->whole(Stage::scores,
                              [&] { return cpu::reduce_heads(*team_batch_, as<CpuScores>(scores), groups, reduce); });
}
std::unique_ptr<Selection> CpuBackend::top_k(const Scores& scores, std::int64_t n, const std::vector<std::int64_t>& k,
                                             std::int64_t first, std::int64_t last) {
  return clocks_batch_->whole(Stage::selection,
                              [&] { return cpu::top_k(*team_batch_, as<CpuScores>(scores), n, k, first, last); });
}

std::unique_ptr<Selection> CpuBackend::select_ends(std::int64_t n, std::int64_t first, std::int64_t last, int heads) {
  auto selection = std::make_unique<CpuSelection>();
  selection->heads = heads;
  std::vector<std::int32_t> rows(std::size_t(first + last));
  std::iota(rows.begin(), rows.begin() + first, 0);
  std::iota(rows.begin() + first, rows.end(), std::int32_t(n - last));
  selection->rows.assign(std::size_t(heads), rows);
  return selection;
}
std::unique_ptr<Selection> CpuBackend::repeat(const Selection& one, int heads) {
  auto selection = std::make_unique<CpuSelection>();
  selection->heads = heads;
  selection->rows.assign(std::size_t(heads), as<CpuSelection>(one).rows[0]);
  return selection;
}

std::vector<std::int32_t> CpuBackend::read(const Selection& selection, int head) {
  return as<CpuSelection>(selection).rows[std::size_t(head)];
}
std::vector<float> CpuBackend::read_last(const Hidden& x) {
  const float* end = as<CpuHidden>(x).x.data() + x.n() * config_.n_embd;
  return {end - config_.n_embd, end};
}
std::vector<float> CpuBackend::read(const Scores& scores) {
  const auto& s = as<CpuScores>(scores).s;
  return {s.data(), s.data() + s.size()};
}
double CpuBackend::coverage(const Scores& raw, const Selection& keep, std::int64_t rows) {
  return clocks_batch_->whole(Stage::scores,
                              [&] { return cpu::coverage(as<CpuScores>(raw), as<CpuSelection>(keep), rows); });
}

std::unique_ptr<LayerCache> CpuBackend::store(const LayerState& state, const Selection& keep, const CacheFormat& format,
                                              RunControl&) {
  return clocks_batch_->whole(Stage::store, [&] {
    return cpu::store(*arithmetic_.kernels, *team_batch_, shape_, as<CpuLayerState>(state), as<CpuSelection>(keep),
                      format, placement_, huge_pages_);
  });
}

StageTimes CpuBackend::take_stage_times() {
  StageTimes times = clocks_batch_->take();
  times += clocks_->take();
  const auto now = std::chrono::steady_clock::now();
  const double passed = std::chrono::duration<double, std::milli>(now - times_taken_).count();
  times[Stage::wait] = std::max(0.0, passed - times.total());
  times_taken_ = now;
  return times;
}

}  // namespace fastkv::cpu
