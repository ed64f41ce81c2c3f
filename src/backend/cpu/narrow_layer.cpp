// Matrix-vector phases of a layer: every thread prepares the activations for itself (cheaper than a barrier), then
// takes panels as they come.
#include "backend/cpu/narrow_layer.hpp"

#include <algorithm>

namespace fastkv::cpu {
namespace {

using simd::kLanes;
constexpr std::int64_t kPanelsPerItem = 4;
enum Phase { kQkv, kOutput, kGateUp, kDown, kHead };

std::int64_t widest(const ModelConfig& c) { return std::max({c.n_embd, c.q_dim(), c.n_ff}); }
std::size_t panel_floats(const ModelConfig& c) { return std::size_t(kLanes) * std::size_t(widest(c) + simd::kGroup); }

}  // namespace

std::size_t NarrowLayer::bytes(const Arithmetic& arithmetic, const ModelConfig& c, int threads, std::int64_t rows) {
  const std::size_t shared = std::size_t(c.n_embd + 2 * c.q_dim() + 2 * c.kv_dim() + c.n_ff);
  return std::size_t(rows) * (shared + std::size_t(threads) * std::size_t(c.n_embd)) * sizeof(float) +
         std::size_t(threads) * (RowTile::bytes(arithmetic, rows, widest(c)) + panel_floats(c) * sizeof(float));
}

NarrowLayer::NarrowLayer(const Arithmetic& arithmetic, const ModelConfig& c, ThreadTeam& team, NarrowUse use,
                         std::int64_t rows)
    : arithmetic_(arithmetic), config_(c), team_(team), use_(use), rows_(rows) {
  const std::size_t m = std::size_t(rows);
  x_ = Array<float>(m * std::size_t(c.n_embd), "decode rows");
  q_ = Array<float>(m * std::size_t(c.q_dim()), "decode rows");
  k_ = Array<float>(m * std::size_t(c.kv_dim()), "decode rows");
  v_ = Array<float>(m * std::size_t(c.kv_dim()), "decode rows");
  attention_ = Array<float>(m * std::size_t(c.q_dim()), "decode rows");
  act_ = Array<float>(m * std::size_t(c.n_ff), "decode rows");
  for (int t = 0; t < team.size(); ++t)
    own_.push_back(std::make_unique<Own>(
        Own{RowTile(arithmetic, rows, widest(c)), Array<float>(m * std::size_t(c.n_embd), "decode rows"),
            Array<float>(2 * m * kLanes, "decode rows"), Array<float>(panel_floats(c), "weight panel")}));
}

void NarrowLayer::multiply_panel(int thread, const PackedTensor& w, std::int64_t p, float* y) const {
  const Own& own = *own_[std::size_t(thread)];
  if (use_ == NarrowUse::decode)
    own.tile.multiply_packed(w, p, y);
  else
    own.tile.multiply_panel(w, p, own.panel.data(), y);
}

// Hands items 0 .. count − 1 to the threads; ends with a barrier. A phase's counter is reset by thread 0 after that
// barrier and used again only after another one.
template <class Body>
void NarrowLayer::share(int phase, int thread, std::int64_t count, const Body& body) {
  auto& next = next_[std::size_t(phase)];
  for (std::int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(item);
  team_.barrier();
  if (thread == 0) next.store(0, std::memory_order_relaxed);
}

void NarrowLayer::normalise(int thread, const std::vector<float>& weight) {
  Own& own = *own_[std::size_t(thread)];
  const std::int64_t d = config_.n_embd;
  for (std::int64_t i = 0; i < rows_; ++i)
    arithmetic_.kernels->rms_norm(x_.data() + i * d, weight.data(), d, config_.rms_eps, own.normed.data() + i * d);
  own.tile.prepare(own.normed.data(), d, rows_, d);
}

void NarrowLayer::multiply(int phase, int thread, const Job* jobs, int count) {
  float* y = own_[std::size_t(thread)]->y.data();
  const auto items = [](const Job& job) { return (job.linear->w.panels() + kPanelsPerItem - 1) / kPanelsPerItem; };
  std::int64_t total = 0;
  for (int j = 0; j < count; ++j) total += items(jobs[j]);
  share(phase, thread, total, [&](std::int64_t item) {
    const Job* job = jobs;
    while (item >= items(*job)) item -= items(*job++);
    const PackedTensor& w = job->linear->w;
    const std::vector<float>& bias = job->linear->bias;
    for (std::int64_t p = item * kPanelsPerItem; p < std::min(w.panels(), (item + 1) * kPanelsPerItem); ++p) {
      multiply_panel(thread, w, p, y);
      const std::int64_t lanes = std::min<std::int64_t>(kLanes, w.rows() - p * kLanes);
      for (std::int64_t i = 0; i < rows_; ++i) {
        float* out = job->out + i * job->ld + p * kLanes;
        for (std::int64_t r = 0; r < lanes; ++r) {
          const float value = y[i * kLanes + r] + (bias.empty() ? 0.0f : bias[std::size_t(p * kLanes + r)]);
          out[r] = job->accumulate ? out[r] + value : value;
        }
      }
    }
  });
}

void NarrowLayer::project(int thread, const LayerWeights& layer, bool with_kv) {
  normalise(thread, layer.attn_norm);
  const Job jobs[] = {{&layer.q, q(), config_.q_dim(), false},
                      {&layer.k, k(), config_.kv_dim(), false},
                      {&layer.v, v(), config_.kv_dim(), false}};
  multiply(kQkv, thread, jobs, with_kv ? 3 : 1);
}

void NarrowLayer::output_and_mlp(int thread, const LayerWeights& layer) {
  RowTile& tile = own_[std::size_t(thread)]->tile;
  tile.prepare(attention(), config_.q_dim(), rows_, config_.q_dim());
  const Job output{&layer.o, x(), config_.n_embd, true};
  multiply(kOutput, thread, &output, 1);

  normalise(thread, layer.ffn_norm);
  // act[16p ..] = silu(gate) ∘ up, panel by panel of both matrices
  const PackedTensor &gate = layer.gate.w, &up = layer.up.w;
  const std::int64_t f = config_.n_ff, items = (gate.panels() + kPanelsPerItem - 1) / kPanelsPerItem;
  share(kGateUp, thread, items, [&](std::int64_t item) {
    for (std::int64_t p = item * kPanelsPerItem; p < std::min(gate.panels(), (item + 1) * kPanelsPerItem); ++p) {
      float *g = own_[std::size_t(thread)]->y.data(), *u = g + rows_ * kLanes;
      multiply_panel(thread, gate, p, g);
      multiply_panel(thread, up, p, u);
      const std::int64_t lanes = std::min<std::int64_t>(kLanes, f - p * kLanes);
      for (std::int64_t i = 0; i < rows_; ++i, g += kLanes, u += kLanes) {
        if (!layer.gate.bias.empty()) arithmetic_.kernels->add(g, layer.gate.bias.data() + p * kLanes, lanes);
        if (!layer.up.bias.empty()) arithmetic_.kernels->add(u, layer.up.bias.data() + p * kLanes, lanes);
        arithmetic_.kernels->silu_mul(g, u, lanes, act_.data() + i * f + p * kLanes);
      }
    }
  });

  tile.prepare(act_.data(), f, rows_, f);
  const Job down{&layer.down, x(), config_.n_embd, true};
  multiply(kDown, thread, &down, 1);
}

void NarrowLayer::output_head(int thread, const Weights& weights, float* out) {
  normalise(thread, weights.output_norm);
  const PackedTensor& w = weights.output();
  float* y = own_[std::size_t(thread)]->y.data();
  const std::int64_t vocab = w.rows();
  share(kHead, thread, w.panels(), [&](std::int64_t p) {
    multiply_panel(thread, w, p, y);
    for (std::int64_t i = 0; i < rows_; ++i)
      for (std::int64_t r = p * kLanes; r < std::min(vocab, (p + 1) * kLanes); ++r)
        out[i * vocab + r] =
            y[i * kLanes + r - p * kLanes] + (weights.output_bias.empty() ? 0.0f : weights.output_bias[std::size_t(r)]);
  });
}

}  // namespace fastkv::cpu
