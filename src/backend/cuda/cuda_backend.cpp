// Setting up the CUDA backend: device, options, memory; embedding, output head and cache.
#include "backend/cuda/cuda_backend.hpp"

#include <algorithm>
#include <cstdint>
#include <thread>

#include "backend/cuda/kernels/cache.hpp"
#include "backend/cuda/kernels/rows.hpp"
#include "backend/cuda/kernels/scores.hpp"
#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr std::int64_t kLogitRows = 32;   // prompt rows whose logits lie on the device at a time
constexpr std::int64_t kMostRows = 8192;  // of a batch: products of so many rows run at the full rate
constexpr std::int64_t kLeastRows = 512;
constexpr std::size_t kSpaceShare = 16;  // a batch's activations take at most this fraction of the device
constexpr std::int64_t kRowsStep = 128;  // query rows of an attention tile

cudaDeviceProp properties(int device) {
  cudaDeviceProp found;
  check_cuda(cudaGetDeviceProperties(&found, device), "properties of the device");
  return found;
}

void check_options(const EngineOptions& options) {
  const auto reject = [](const char* flag) {
    fail(ErrorCode::invalid_option, flag, " has no effect with --device cuda");
  };
  check(options.compute == Compute::automatic || options.compute == Compute::bf16, ErrorCode::invalid_option,
        "--compute ", name(options.compute), ": expected auto or bf16 with --device cuda");
  if (options.gemm != fastkv::Gemm::automatic) reject("--gemm");
  if (options.panels == PrefillPanels::keep) reject("--prefill-panels keep");
  if (!options.isa.empty()) reject("--isa");
  check(options.tile_rows >= 0 && options.tile_rows <= 65536, ErrorCode::invalid_option, "-ub ", options.tile_rows,
        ": expected 1..65536 token rows at once, or 0 to choose");
}

/// Blocks given back stay with this process: the next layer's are the same.
void keep_freed_memory() {
  int device = 0;
  cudaMemPool_t pool = nullptr;
  std::uint64_t all = UINT64_MAX;
  check_cuda(cudaGetDevice(&device), "the device");
  check_cuda(cudaDeviceGetDefaultMemPool(&pool, device), "the memory pool");
  check_cuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "the memory pool");
}

}  // namespace

std::string devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    return concat("cuda: no device: ", status == cudaSuccess ? "none found" : cudaGetErrorString(status), "\n");
  }
  std::string text;
  for (int i = 0; i < count; ++i) {
    const cudaDeviceProp found = properties(i);
    text += concat("cuda: ", found.name, ", sm_", found.major, found.minor, ", ", found.multiProcessorCount,
                   " multiprocessors, ", found.totalGlobalMem >> 20, " MiB\n");
  }
  return text;
}

CudaBackend::CudaBackend(const EngineOptions& options, const ModelConfig& config, const ModelTensors& tensors,
                         DecodeBy decode_by)
    : config_(config),
      shape_{config.n_head, config.n_head_kv, config.head_dim, config.attention_scale},
      decode_by_(decode_by),
      keep_codes_(options.compute == Compute::automatic),
      tile_rows_(options.tile_rows),
      device_memory_(require_device().totalGlobalMem),
      gemm_(stream_),
      timer_(stream_),
      pace_(stream_) {
  check_options(options);
  check(config.head_dim % 8 == 0 && config.head_dim <= kMaxHeadDim, ErrorCode::unsupported, "head size ",
        config.head_dim, ": expected a multiple of 8 up to ", kMaxHeadDim);
  for (const int width : {config.n_embd, config.n_ff})
    check(width % 4 == 0, ErrorCode::unsupported, "a layer of width ", width,
          ": expected a multiple of 4 with --device cuda");
  keep_freed_memory();
  std::vector<WeightCopy> copies;
  plan_ = place_weights(tensors, keep_codes_, nullptr, copies);
  const int asked = options.threads_batch > 0 ? options.threads_batch : options.threads;
  load_threads_ = asked > 0 ? asked : std::max(1, int(std::thread::hardware_concurrency()));

  int device = 0;
  check_cuda(cudaGetDevice(&device), "the device");
  const cudaDeviceProp found = properties(device);
  info_.isa = concat("sm_", found.major, found.minor);
  info_.compute = name(Compute::bf16);
  info_.decode_compute = plan_.narrowest == WeightForm::q4   ? "q4"
                         : plan_.narrowest == WeightForm::q8 ? "q8"
                                                             : info_.compute;
  info_.attention = "f16 tensor cores";
  info_.gemm = Gemm::version();
  info_.threads = info_.threads_batch = 1;
  info_.threads_reason = concat("one feeds the device; ", load_threads_, " load");
  info_.device = found.name;
}

CacheType CudaBackend::resolve_cache_type(CacheType type, const char* flag) const {
  if (type == CacheType::automatic) return CacheType::bf16;
  check(type != CacheType::q8_0 || shape_.d % 32 == 0, ErrorCode::invalid_option, flag,
        " q8_0: expected a head size that is a multiple of 32, found ", shape_.d);
  return type;
}

// ---- memory --------------------------------------------------------------------------------------------------------

std::int64_t CudaBackend::batch_rows(std::int64_t n) const {
  if (tile_rows_ > 0) return std::min<std::int64_t>(tile_rows_, n);
  std::int64_t most = kMostRows;
  while (most > kLeastRows && space_bytes(most) > device_memory_ / kSpaceShare) most /= 2;
  // equal batches, so that no row more makes a batch of one
  return std::min(n, round_up(ceil_div(n, ceil_div(n, most)), kRowsStep));
}

std::size_t CudaBackend::wide_bytes(std::int64_t rows) const {
  const ModelConfig& c = config_;
  return std::size_t(rows) *
         std::max({2 * std::size_t(c.kv_dim()) * sizeof(float), std::size_t(c.q_dim()) * (sizeof(float) + sizeof(f16)),
                   2 * std::size_t(c.n_ff) * sizeof(bf16)});
}

std::size_t CudaBackend::space_bytes(std::int64_t rows) const {
  const ModelConfig& c = config_;
  return wide_bytes(rows) + std::size_t(rows) * std::size_t(c.n_embd + std::max(c.q_dim(), c.n_ff)) * sizeof(bf16);
}

void CudaBackend::make_space(std::int64_t rows) {
  if (rows <= space_.rows) return;
  const ModelConfig& c = config_;
  space_ = {};
  const auto array = [&](int width) {
    return DeviceArray<bf16>(stream_, std::size_t(rows) * std::size_t(width), "activations");
  };
  space_.normed = array(c.n_embd);
  space_.wide = DeviceBuffer(stream_, wide_bytes(rows), "activations");
  space_.hidden = array(std::max(c.q_dim(), c.n_ff));
  space_.rows = rows;
}

std::size_t CudaBackend::token_bytes(std::int64_t capacity) const {
  const ModelConfig& c = config_;
  return std::size_t(c.n_embd + c.q_dim() + 2 * c.kv_dim() + shape_.d + c.n_vocab) * sizeof(float) +
         std::size_t(std::max(c.q_dim(), c.n_ff)) * sizeof(bf16) + arg_max_bytes(c.n_vocab) +
         attention_decode_bytes(shape_, capacity);
}

std::size_t CudaBackend::score_bytes(std::int64_t rows, std::int64_t n) const {
  if (rows == 0) return 0;
  const std::size_t scores = 3 * std::size_t(n) * std::size_t(shape_.heads) * sizeof(float);  // raw, pooled, joined
  return std::size_t(rows) * std::size_t(config_.q_dim()) * sizeof(f16) + scores + column_scores_bytes(shape_, rows, n);
}

BackendMemory CudaBackend::memory(std::int64_t n, std::int64_t score_rows) const {
  const std::size_t rows = std::size_t(n), kv = std::size_t(config_.kv_dim()), d = std::size_t(shape_.d);
  BackendMemory m;
  m.weights = plan_.bytes;
  m.decode_weights = plan_.decode_bytes;
  m.hidden = rows * ((std::size_t(config_.n_embd) + d) * sizeof(float) + sizeof(std::int32_t));
  m.layer_kv = 2 * rows * kv * sizeof(f16);
  const std::size_t selected = rows * std::size_t(shape_.heads) * sizeof(std::int32_t);
  const std::size_t head = std::size_t(kLogitRows) *
                           (std::size_t(config_.n_vocab) * sizeof(float) + std::size_t(config_.n_embd) * sizeof(bf16));
  m.scratch =
      space_bytes(batch_rows(n)) + token_bytes(n) + Gemm::work_bytes() + selected + head + score_bytes(score_rows, n);
  m.on_host = false;
  return m;
}

std::size_t CudaBackend::available_memory() const {
  // what memory() counts as scratch and a run before this one left
  const std::size_t held = Gemm::work_bytes() + space_.normed.bytes() + space_.wide.bytes() + space_.hidden.bytes() +
                           token_.x.bytes() + token_.angles.bytes() + token_.qkv.bytes() + token_.hidden.bytes() +
                           token_.logits.bytes() + token_.ranking.bytes() + token_.partial.bytes();
  return free_memory() + held;
}

std::size_t CudaBackend::cache_row_bytes(const CacheFormat& format) const {
  return std::size_t(cuda::cache_row_bytes(format.k, shape_.d) + cuda::cache_row_bytes(format.v, shape_.d));
}

void CudaBackend::load(const ModelTensors& tensors, const std::function<void(const TensorView&)>& packed,
                       RunControl& control) {
  weights_ = load_weights(stream_, tensors, keep_codes_, load_threads_, packed, control);
  inv_freq_ = to_device<double>(stream_, config_.rope_inv_freq, "rotation frequencies");
}

// ---- both ends of a prefill, and the cache -------------------------------------------------------------------------

void CudaBackend::make_rope(CudaHidden& x) const {
  x.rope = DeviceArray<float2>(stream_, std::size_t(x.n() * shape_.d / 2), "rotation table");
  rope_table(stream_, x.original.data(), x.n(), inv_freq_.data(), shape_.d, config_.rope_magnitude, x.rope.data());
}

std::unique_ptr<Hidden> CudaBackend::embed(std::span<const std::int32_t> tokens, std::vector<std::int32_t> positions,
                                           RunControl& control) {
  auto x = std::make_unique<CudaHidden>();
  timer_.whole(Stage::rest, [&] {
    x->stream = stream_;
    gemm_.expect_rows(std::int64_t(tokens.size()));
    space_ = {};  // the last prompt's may have been longer
    token_.partial = {};
    x->original = to_device<std::int32_t>(stream_, positions, "positions");
    x->x = DeviceArray<float>(stream_, tokens.size() * std::size_t(config_.n_embd), "residual stream");
    const auto ids = to_device<std::int32_t>(stream_, tokens, "tokens");
    cuda::embed(stream_, weights_.token_embd, ids.data(), x->n(), config_.n_embd, x->x.data());
    make_rope(*x);
  });
  pace_.step(control);
  return x;
}

void CudaBackend::gather_hidden(CudaHidden& x, const CudaSelection& selection) const {
  const std::int64_t n = selection.counts[0], width = config_.n_embd;
  DeviceArray<float> rows(stream_, std::size_t(n * width), "residual stream");
  DeviceArray<std::int32_t> original(stream_, std::size_t(n), "positions");
  gather_rows(stream_, x.x.data(), selection.rows.data(), n, int(width), rows.data());
  gather_values(stream_, x.original.data(), selection.rows.data(), n, original.data());
  x.x = std::move(rows);
  x.original = std::move(original);
  make_rope(x);
}

void CudaBackend::gather(Hidden& x, const Selection& rows) {
  timer_.whole(Stage::rest,
               [&] { gather_hidden(static_cast<CudaHidden&>(x), static_cast<const CudaSelection&>(rows)); });
}

std::vector<float> CudaBackend::read_last(const Hidden& hidden) {
  const auto& x = static_cast<const CudaHidden&>(hidden);
  return to_host(stream_, x.x.data() + (x.n() - 1) * config_.n_embd, std::size_t(config_.n_embd));
}

void CudaBackend::logits(const Hidden& hidden, std::int64_t rows, float* out, RunControl& control) {
  const auto& x = static_cast<const CudaHidden&>(hidden);
  const std::int64_t most = std::min(rows, kLogitRows), vocab = config_.n_vocab;
  const DeviceArray<bf16> normed(stream_, std::size_t(most * config_.n_embd), "activations");
  const DeviceArray<float> found(stream_, std::size_t(most * vocab), "logits");
  for (std::int64_t begin = 0; begin < rows; begin += most) {
    const std::int64_t m = std::min(most, rows - begin);
    timer_.start();
    rms_norm(stream_, x.x.data() + (x.n() - rows + begin) * config_.n_embd, m, config_.n_embd, weights_.output_norm,
             config_.rms_eps, normed.data());
    timer_.lap(Stage::rest);
    const Linear& head = weights_.output;
    gemm_.multiply(normed.data(), m, head.w, head.float_bias, head.out, head.in, found.data());
    timer_.lap(Stage::gemm);
    copy_to_host(stream_, out + begin * vocab, found.data(), std::size_t(m * vocab) * sizeof(float));
    control.poll();
    control.throw_if_stopped();
  }
}

std::unique_ptr<LayerCache> CudaBackend::store(const LayerState& layer_state, const Selection& selection,
                                               const CacheFormat& format, RunControl&) {
  const auto& state = static_cast<const CudaLayerState&>(layer_state);
  const auto& keep = static_cast<const CudaSelection&>(selection);
  std::unique_ptr<CudaLayerCache> cache;
  timer_.whole(Stage::store, [&] {
    cache = std::make_unique<CudaLayerCache>(stream_, keep, format, shape_.d);
    store_rows(stream_, shape_, state.k.data(), state.v.data(), state.n, keep.rows.data(), keep.device_offsets.data(),
               cache->most_kept(), cache->view());
  });
  return cache;
}

}  // namespace fastkv::cuda
