// Matrix-vector phases of a layer: every thread prepares the activations for itself (cheaper than a barrier), then
// reads its run of panels, and what is left of the others'.
#include "backend/cpu/narrow_layer.hpp"

#include <algorithm>

#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

using simd::kLanes;
// Panels of an item: as many as the kernels read side by side, unless they are so large or so few that some threads
// would wait for others at the end.
constexpr std::int64_t kMaxPanels = 4;
constexpr std::size_t kMaxItemBytes = std::size_t{192} << 10;
constexpr std::int64_t kItemsPerThread = 8;

std::int64_t widest(const ModelConfig& c) { return std::max({c.n_embd, c.q_dim(), c.n_ff}); }
std::size_t panel_floats(const ModelConfig& c) { return std::size_t(kLanes) * std::size_t(widest(c) + simd::kGroup); }

}  // namespace

std::size_t NarrowLayer::bytes(const Arithmetic& arithmetic, const ModelConfig& c, int threads, std::int64_t rows) {
  const std::size_t shared = std::size_t(c.n_embd + 2 * c.q_dim() + 2 * c.kv_dim() + c.n_ff);
  return std::size_t(rows) * (shared + std::size_t(threads) * std::size_t(c.n_embd)) * sizeof(float) +
         std::size_t(threads) *
             (RowTile::bytes(arithmetic, LinearUse::decode, rows, widest(c)) + panel_floats(c) * sizeof(float));
}

NarrowLayer::NarrowLayer(const Arithmetic& arithmetic, const ModelConfig& c, ThreadTeam& team, StageClocks& clocks,
                         LinearUse use, std::int64_t rows)
    : arithmetic_(arithmetic),
      config_(c),
      team_(team),
      clocks_(clocks),
      use_(use),
      rows_(rows),
      qkv_work_(team),
      output_work_(team),
      gate_up_work_(team),
      down_work_(team),
      head_work_(team) {
  const std::size_t m = std::size_t(rows);
  x_ = Array<float>(m * std::size_t(c.n_embd), "decode rows");
  q_ = Array<float>(m * std::size_t(c.q_dim()), "decode rows");
  k_ = Array<float>(m * std::size_t(c.kv_dim()), "decode rows");
  v_ = Array<float>(m * std::size_t(c.kv_dim()), "decode rows");
  attention_ = Array<float>(m * std::size_t(c.q_dim()), "decode rows");
  act_ = Array<float>(m * std::size_t(c.n_ff), "decode rows");
  own_.resize(std::size_t(team.size()));
  team.run([&](int thread) {  // each thread touches its own first
    own_[std::size_t(thread)] = std::make_unique<Own>(
        Own{RowTile(arithmetic, use, rows, widest(c)), Array<float>(m * std::size_t(c.n_embd), "decode rows"),
            Array<float>(2 * kMaxPanels * m * kLanes, "decode rows"), Array<float>(panel_floats(c), "weight panel")});
  });
}

NarrowLayer::Strides NarrowLayer::multiply_panels(int thread, const PackedTensor& w, std::int64_t p, std::int64_t count,
                                                  float* y) const {
  const Own& own = *own_[std::size_t(thread)];
  if (use_ == LinearUse::decode) {
    own.tile.multiply_packed(w, p, count, y);
    return {count * kLanes, kLanes};
  }
  for (std::int64_t j = 0; j < count; ++j) own.tile.multiply_panel(w, p + j, own.panel.data(), y + j * rows_ * kLanes);
  return {kLanes, rows_ * kLanes};
}

std::int64_t NarrowLayer::panels_per_item(std::int64_t panels, std::size_t bytes) const {
  std::int64_t count = kMaxPanels;
  while (count > 1 && (std::size_t(count) * bytes > kMaxItemBytes || panels < count * kItemsPerThread * team_.size()))
    count /= 2;
  return count;
}

// Hands items 0 .. count − 1 to the threads; ends with a barrier. A phase's work is used again only after another one.
template <class Body>
void NarrowLayer::share(SharedWork& work, int thread, std::int64_t count, const Body& body) {
  for (std::int64_t item; (item = work.next(thread, count)) >= 0;) body(item);
  clocks_[thread].lap(Stage::gemm);
  team_.barrier();
  clocks_[thread].start();
  work.reset(thread);
}

void NarrowLayer::normalise(int thread, const std::vector<float>& weight) {
  Own& own = *own_[std::size_t(thread)];
  const std::int64_t d = config_.n_embd;
  for (std::int64_t i = 0; i < rows_; ++i)
    arithmetic_.kernels->rms_norm(x_.data() + i * d, weight.data(), d, config_.rms_eps, own.normed.data() + i * d);
  own.tile.prepare_all(own.normed.data(), d, rows_, d);
  clocks_[thread].lap(Stage::rest);
}

void NarrowLayer::multiply(SharedWork& work, int thread, const Job* jobs, int count) {
  float* y = own_[std::size_t(thread)]->y.data();
  std::int64_t panels = 0, total = 0;
  for (int j = 0; j < count; ++j) panels += jobs[j].linear->w.panels();
  const std::int64_t each = panels_per_item(panels, jobs->linear->w.panel_bytes());
  const auto items = [each](const Job& job) { return ceil_div(job.linear->w.panels(), each); };
  for (int j = 0; j < count; ++j) total += items(jobs[j]);
  share(work, thread, total, [&](std::int64_t item) {
    const Job* job = jobs;
    while (item >= items(*job)) item -= items(*job++);
    const PackedTensor& w = job->linear->w;
    const std::vector<float>& bias = job->linear->bias;
    const std::int64_t first = item * each, n = std::min(w.panels() - first, each);
    const Strides at = multiply_panels(thread, w, first, n, y);
    for (std::int64_t i = 0; i < rows_; ++i)
      for (std::int64_t p = first; p < first + n; ++p) {
        const std::int64_t lanes = std::min<std::int64_t>(kLanes, w.rows() - p * kLanes);
        const float* from = y + i * at.row + (p - first) * at.panel;
        float* out = job->out + i * job->ld + p * kLanes;
        for (std::int64_t r = 0; r < lanes; ++r) {
          const float value = from[r] + (bias.empty() ? 0.0f : bias[std::size_t(p * kLanes + r)]);
          out[r] = job->accumulate ? out[r] + value : value;
        }
      }
  });
}

void NarrowLayer::project(int thread, const LayerWeights& layer, bool with_kv) {
  clocks_[thread].start();
  normalise(thread, layer.attn_norm);
  const Job jobs[] = {{&layer.q, q(), config_.q_dim(), false},
                      {&layer.k, k(), config_.kv_dim(), false},
                      {&layer.v, v(), config_.kv_dim(), false}};
  multiply(qkv_work_, thread, jobs, with_kv ? 3 : 1);
}

void NarrowLayer::output_and_mlp(int thread, const LayerWeights& layer) {
  clocks_[thread].start();
  RowTile& tile = own_[std::size_t(thread)]->tile;
  tile.prepare_all(attention(), config_.q_dim(), rows_, config_.q_dim());
  clocks_[thread].lap(Stage::rest);
  const Job output{&layer.o, x(), config_.n_embd, true};
  multiply(output_work_, thread, &output, 1);

  normalise(thread, layer.ffn_norm);
  // act[16p ..] = silu(gate) ∘ up, the same panels of both matrices
  const PackedTensor &gate = layer.gate.w, &up = layer.up.w;
  const std::int64_t f = config_.n_ff, each = panels_per_item(gate.panels(), 2 * gate.panel_bytes());
  float *g = own_[std::size_t(thread)]->y.data(), *u = g + kMaxPanels * rows_ * kLanes;
  share(gate_up_work_, thread, ceil_div(gate.panels(), each), [&](std::int64_t item) {
    const std::int64_t first = item * each, n = std::min(gate.panels() - first, each);
    const Strides of_gate = multiply_panels(thread, gate, first, n, g),
                  of_up = multiply_panels(thread, up, first, n, u);
    for (std::int64_t i = 0; i < rows_; ++i)
      for (std::int64_t p = first; p < first + n; ++p) {
        const std::int64_t lanes = std::min<std::int64_t>(kLanes, f - p * kLanes);
        float* gates = g + i * of_gate.row + (p - first) * of_gate.panel;
        float* ups = u + i * of_up.row + (p - first) * of_up.panel;
        if (!layer.gate.bias.empty()) arithmetic_.kernels->add(gates, layer.gate.bias.data() + p * kLanes, lanes);
        if (!layer.up.bias.empty()) arithmetic_.kernels->add(ups, layer.up.bias.data() + p * kLanes, lanes);
        arithmetic_.kernels->silu_mul(gates, ups, lanes, act_.data() + i * f + p * kLanes);
      }
  });

  tile.prepare_all(act_.data(), f, rows_, f);
  clocks_[thread].lap(Stage::rest);
  const Job down{&layer.down, x(), config_.n_embd, true};
  multiply(down_work_, thread, &down, 1);
}

void NarrowLayer::output_head(int thread, const Weights& weights, float* out) {
  clocks_[thread].start();
  normalise(thread, weights.output_norm);
  const PackedTensor& w = weights.output();
  float* y = own_[std::size_t(thread)]->y.data();
  const std::int64_t vocab = w.rows(), each = panels_per_item(w.panels(), w.panel_bytes());
  share(head_work_, thread, ceil_div(w.panels(), each), [&](std::int64_t item) {
    const std::int64_t first = item * each, n = std::min(w.panels() - first, each);
    const Strides at = multiply_panels(thread, w, first, n, y);
    for (std::int64_t i = 0; i < rows_; ++i)
      for (std::int64_t r = first * kLanes; r < std::min(vocab, (first + n) * kLanes); ++r)
        out[i * vocab + r] = y[i * at.row + (r / kLanes - first) * at.panel + r % kLanes] +
                             (weights.output_bias.empty() ? 0.0f : weights.output_bias[std::size_t(r)]);
  });
}

}  // namespace fastkv::cpu
