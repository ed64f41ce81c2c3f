// Matrix-vector phases of a layer: every thread prepares the activations for itself (cheaper than a barrier), then
// reads its run of panels, and what is left of the others'.
#include "backend/cpu/narrow_layer.hpp"

#include <algorithm>

#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

using simd::kLanes;
// Panels of a run of an item: several, so that handing it out costs little, unless they are so large or so few that
// some threads would wait for others at the end.
constexpr std::int64_t kMaxRun = 2;
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
            Array<float>(4 * kMaxRun * m * kLanes, "decode rows"), Array<float>(panel_floats(c), "weight panel")});
  });
}

std::int64_t NarrowLayer::items_of(std::int64_t panels, std::int64_t each) { return ceil_div(panels, 2 * each); }

NarrowLayer::Item NarrowLayer::item_of(std::int64_t panels, std::int64_t each, Range share, std::int64_t item) {
  // of the share's 2 (end − begin) runs, the first half one after another beside the second half
  const auto run = [&](std::int64_t i) { return Range{std::min(i * each, panels), std::min((i + 1) * each, panels)}; };
  return {each, {run(share.begin + item), run(share.end + item)}};
}

template <class Fn>
void NarrowLayer::for_each_panel(const Item& item, const Fn& fn) {
  for (int r = 0; r < 2; ++r)
    for (std::int64_t p = item.runs[r].begin; p < item.runs[r].end; ++p) fn(r * item.each + p - item.runs[r].begin, p);
}

NarrowLayer::Strides NarrowLayer::multiply_panels(int thread, const PackedTensor& w, const Item& item, float* y) const {
  const Own& own = *own_[std::size_t(thread)];
  if (use_ == LinearUse::decode) {
    const std::int64_t row = 2 * item.each * kLanes;
    const auto [first, second] = item.runs;
    if (second.end - second.begin == item.each) {
      own.tile.multiply_packed(w, first.begin, second.begin - first.begin, item.each, y, row);
    } else {
      own.tile.multiply_packed(w, first.begin, 0, first.end - first.begin, y, row);
      own.tile.multiply_packed(w, second.begin, 0, second.end - second.begin, y + item.each * kLanes, row);
    }
    return {row, kLanes};
  }
  for_each_panel(item, [&](std::int64_t place, std::int64_t p) {
    own.tile.multiply_panel(w, p, own.panel.data(), y + place * rows_ * kLanes);
  });
  return {kLanes, rows_ * kLanes};
}

std::int64_t NarrowLayer::panels_per_run(std::int64_t panels, std::size_t bytes) const {
  std::int64_t each = kMaxRun;
  while (each > 1 &&
         (2 * std::size_t(each) * bytes > kMaxItemBytes || panels < 2 * each * kItemsPerThread * team_.size()))
    each /= 2;
  return each;
}

// Hands items 0 .. count − 1 to the threads, each with the run of items it belongs to; ends with a barrier. A phase's
// work is used again only after another one.
template <class Body>
void NarrowLayer::share(SharedWork& work, int thread, std::int64_t count, const Body& body) {
  for (std::int64_t item; (item = work.next(thread, count)) >= 0;) body(item, run_with(count, team_.size(), item));
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
  const std::int64_t each = panels_per_run(panels, jobs->linear->w.panel_bytes());
  for (int j = 0; j < count; ++j) total += items_of(jobs[j].linear->w.panels(), each);
  share(work, thread, total, [&](std::int64_t item, Range run) {
    const Job* job = jobs;
    for (std::int64_t n; item >= (n = items_of(job->linear->w.panels(), each)); ++job)
      item -= n, run.begin -= n, run.end -= n;
    const PackedTensor& w = job->linear->w;
    const std::vector<float>& bias = job->linear->bias;
    const Range share{std::max<std::int64_t>(run.begin, 0), std::min(run.end, items_of(w.panels(), each))};
    const Item mine = item_of(w.panels(), each, share, item);
    const Strides at = multiply_panels(thread, w, mine, y);
    for (std::int64_t i = 0; i < rows_; ++i)
      for_each_panel(mine, [&](std::int64_t place, std::int64_t p) {
        const std::int64_t lanes = std::min<std::int64_t>(kLanes, w.rows() - p * kLanes);
        const float* from = y + i * at.row + place * at.place;
        float* out = job->out + i * job->ld + p * kLanes;
        for (std::int64_t r = 0; r < lanes; ++r) {
          const float value = from[r] + (bias.empty() ? 0.0f : bias[std::size_t(p * kLanes + r)]);
          out[r] = job->accumulate ? out[r] + value : value;
        }
      });
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
  const auto silu = silu_mul(arithmetic_, use_);
  const PackedTensor &gate = layer.gate.w, &up = layer.up.w;
  const std::int64_t f = config_.n_ff, each = panels_per_run(gate.panels(), 2 * gate.panel_bytes());
  float *g = own_[std::size_t(thread)]->y.data(), *u = g + 2 * kMaxRun * rows_ * kLanes;
  share(gate_up_work_, thread, items_of(gate.panels(), each), [&](std::int64_t item, Range run) {
    const Item mine = item_of(gate.panels(), each, run, item);
    const Strides at = multiply_panels(thread, gate, mine, g);
    multiply_panels(thread, up, mine, u);
    for (std::int64_t i = 0; i < rows_; ++i)
      for_each_panel(mine, [&](std::int64_t place, std::int64_t p) {
        const std::int64_t lanes = std::min<std::int64_t>(kLanes, f - p * kLanes);
        float *gates = g + i * at.row + place * at.place, *ups = u + i * at.row + place * at.place;
        if (!layer.gate.bias.empty()) arithmetic_.kernels->add(gates, layer.gate.bias.data() + p * kLanes, lanes);
        if (!layer.up.bias.empty()) arithmetic_.kernels->add(ups, layer.up.bias.data() + p * kLanes, lanes);
        silu(gates, ups, lanes, act_.data() + i * f + p * kLanes);
      });
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
  const std::int64_t vocab = w.rows(), each = panels_per_run(w.panels(), w.panel_bytes());
  share(head_work_, thread, items_of(w.panels(), each), [&](std::int64_t item, Range run) {
    const Item mine = item_of(w.panels(), each, run, item);
    const Strides at = multiply_panels(thread, w, mine, y);
    for (std::int64_t i = 0; i < rows_; ++i)
      for_each_panel(mine, [&](std::int64_t place, std::int64_t p) {
        const float* from = y + i * at.row + place * at.place;
        for (std::int64_t r = p * kLanes; r < std::min(vocab, (p + 1) * kLanes); ++r)
          out[i * vocab + r] =
              from[r - p * kLanes] + (weights.output_bias.empty() ? 0.0f : weights.output_bias[std::size_t(r)]);
      });
  });
}

}  // namespace fastkv::cpu
