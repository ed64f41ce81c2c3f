// The two halves of a layer in prefill: K and V of all rows; then, a batch of rows at a time, everything else.
#include <algorithm>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/kernels/rows.hpp"
#include "core/check.hpp"

namespace fastkv::cuda {
namespace {

double flops(std::int64_t rows, std::int64_t out, std::int64_t in) {
  return 2.0 * double(rows) * double(out) * double(in);
}

}  // namespace

void CudaBackend::normalise(const float* weight, const float* x, std::int64_t first, std::int64_t m) {
  rms_norm(stream_, x + first * config_.n_embd, m, config_.n_embd, weight, config_.rms_eps, space_.normed.data());
  timer_.lap(Stage::rest);
}

void CudaBackend::queries(const LayerWeights& weights, const CudaHidden& x, std::int64_t first, std::int64_t m,
                          const bf16* normed, f16* q) {
  gemm_.multiply(normed, m, weights.q.w, weights.q.float_bias, weights.q.out, weights.q.in, projected());
  timer_.lap(Stage::gemm);
  rotate_queries(stream_, projected(), x.rope.data() + first * shape_.d / 2, m, shape_.heads, shape_.d, q);
  timer_.lap(Stage::rest);
}

std::unique_ptr<LayerState> CudaBackend::begin_layer(int layer, const Hidden& hidden, const ScoreNeeds& needs,
                                                     RunControl& control) {
  const auto& x = static_cast<const CudaHidden&>(hidden);
  const LayerWeights& weights = weights_.layers[std::size_t(layer)];
  const std::int64_t n = x.n(), most = batch_rows(n), kv_dim = config_.kv_dim();
  const std::int64_t outputs = needs.keys_only ? kv_dim : 2 * kv_dim;  // the keys' weights come first
  auto state = std::make_unique<CudaLayerState>();
  state->n = n;
  state->k = DeviceArray<f16>(stream_, std::size_t(n * kv_dim), "keys of a layer");
  if (!needs.keys_only) state->v = DeviceArray<f16>(stream_, std::size_t(n * kv_dim), "values of a layer");
  state->score_rows = std::min(needs.rows, n);
  state->score_q = DeviceArray<f16>(stream_, std::size_t(state->score_rows * config_.q_dim()), "scoring queries");
  const std::int64_t first_query = n - state->score_rows;
  make_space(most);
  for (std::int64_t first = 0; first < n; first += most) {
    const std::int64_t m = std::min(most, n - first);
    timer_.start();
    normalise(weights.attn_norm, x.x.data(), first, m);
    gemm_.multiply(space_.normed.data(), m, weights.kv.w, weights.kv.float_bias, outputs, weights.kv.in, projected());
    timer_.lap(Stage::gemm);
    store_layer_kv(stream_, projected(), x.rope.data(), first, m, n, shape_.heads_kv, shape_.d, state->k.data(),
                   state->v.data());
    timer_.lap(Stage::rest);
    const std::int64_t row = std::clamp<std::int64_t>(first_query - first, 0, m);  // the first that scores
    if (row < m)
      queries(weights, x, first + row, m - row, space_.normed.data() + row * config_.n_embd,
              state->score_q.data() + (first + row - first_query) * config_.q_dim());
    control.add_work(flops(m, outputs, config_.n_embd) + flops(m - row, weights.q.out, weights.q.in));
    pace_.step(control);
  }
  return state;
}

void CudaBackend::finish_layer(int layer, Hidden& hidden, const LayerState& layer_state, const Selection* next,
                               RunControl& control) {
  auto& x = static_cast<CudaHidden&>(hidden);
  const auto& state = static_cast<const CudaLayerState&>(layer_state);
  const LayerWeights& weights = weights_.layers[std::size_t(layer)];
  check(state.n == x.n(), ErrorCode::internal, "finish_layer: ", x.n(), " rows, state of ", state.n);
  const auto* rows = static_cast<const CudaSelection*>(next);
  if (rows) {
    timer_.start();
    gather_hidden(x, *rows);
    timer_.lap(Stage::rest);
  }
  const std::int64_t total = x.n(), most = batch_rows(total);
  // The last rows that go on are the layer's last, whose queries the state has.
  const std::int64_t known = std::min(state.score_rows, rows ? rows->last : total);
  const double visible = total == 1 && rows ? double(state.n) : double(state.n + 1) / 2;  // keys of a row, on average
  make_space(most);
  for (std::int64_t first = 0; first < total; first += most) {
    const std::int64_t m = std::min(most, total - first);
    timer_.start();
    const std::int64_t fresh = std::clamp<std::int64_t>(total - known - first, 0, m);
    finish_rows(weights, x, first, m, fresh, state, rows ? rows->rows.data() : nullptr);
    control.add_work(flops(fresh, weights.q.out, weights.q.in));
    for (const Linear* l : {&weights.o, &weights.gate_up, &weights.down}) control.add_work(flops(m, l->out, l->in));
    control.add_work(4.0 * config_.q_dim() * double(m) * (rows ? visible : double(first) + double(m + 1) / 2));
    pace_.step(control);
  }
}

void CudaBackend::finish_rows(const LayerWeights& weights, CudaHidden& x, std::int64_t first, std::int64_t m,
                              std::int64_t fresh, const CudaLayerState& state, const std::int32_t* original) {
  const std::int64_t q_dim = config_.q_dim();
  float* residual = x.x.data() + first * config_.n_embd;
  f16* q = rotated();
  if (fresh > 0) {
    normalise(weights.attn_norm, x.x.data(), first, fresh);
    queries(weights, x, first, fresh, space_.normed.data(), q);
  }
  if (fresh < m) {
    f16* known = state.score_q.data() + (state.score_rows - (x.n() - first - fresh)) * q_dim;
    if (fresh == 0)
      q = known;
    else
      check_cuda(cudaMemcpyAsync(q + fresh * q_dim, known, std::size_t((m - fresh) * q_dim) * sizeof(f16),
                                 cudaMemcpyDeviceToDevice, stream_),
                 "queries of scoring rows");
  }
  attention_prefill(stream_, shape_, q, original ? original + first : nullptr, first, m, state.k.data(), state.v.data(),
                    state.n, space_.hidden.data());
  timer_.lap(Stage::attention);
  gemm_.add_product(space_.hidden.data(), m, weights.o.w, weights.o.float_bias, weights.o.out, weights.o.in, residual);
  timer_.lap(Stage::gemm);
  // x += (silu(h · Wgᵀ) ∘ (h · Wuᵀ)) · Wdᵀ, h = norm(x)
  normalise(weights.ffn_norm, x.x.data(), first, m);
  const Linear &both = weights.gate_up, &down = weights.down;
  gemm_.multiply(space_.normed.data(), m, both.w, both.bias, both.out, both.in, gates());
  timer_.lap(Stage::gemm);
  silu_mul(stream_, gates(), m, config_.n_ff, space_.hidden.data());
  timer_.lap(Stage::rest);
  gemm_.add_product(space_.hidden.data(), m, down.w, down.float_bias, down.out, down.in, residual);
  timer_.lap(Stage::gemm);
}

}  // namespace fastkv::cuda
