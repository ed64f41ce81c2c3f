// Matrix-vector phases of a layer: every thread prepares the activations for itself (cheaper than a barrier), then
// reads its run of panels, and what is left of the others'.
#include "backend/cpu/narrow_layer.hpp"

#include <algorithm>
#include <cstring>

#include "core/round.hpp"
#include "runtime/fetch.hpp"
#include "simd/isa.hpp"

namespace fastkv::cpu {
namespace {

using simd::kLanes;
// Panels of a run of an item: several, so that handing it out costs little, unless they are so large or so few that
// some threads would wait for others at the end.
constexpr std::int64_t kMaxRun = 2;
static_assert(kMaxRun * kLanes % simd::kGroup == 0);  // outputs of a run share no scale with others
constexpr std::size_t kMaxItemBytes = std::size_t{192} << 10;
constexpr std::int64_t kItemsPerThread = 8;
// Neighbouring items that a thread takes and multiplies at once, when there is one row: memory waits after each time,
// a fifth as long as an item of 72 KiB takes. Weights evict whatever is not used while they stream, so the lines that
// the outputs go through (of 32 items 8 KiB, and as much in their places) are asked for before the product: without
// that, 8 items at a time were best, and a token took 1 % longer; 64 items take 1 % longer still.
constexpr std::int64_t kMaxItems = 32;
std::int64_t max_items(std::int64_t rows) { return rows == 1 ? kMaxItems : 1; }

std::int64_t widest(const ModelConfig& c) { return std::max({c.n_embd, c.q_dim(), c.n_ff}); }
// Of the rows that each thread prepares for itself.
std::int64_t widest_own(const ModelConfig& c, LinearUse use) {
  return use == LinearUse::decode ? std::max(c.n_embd, c.q_dim()) : widest(c);
}
std::size_t output_floats(std::int64_t rows) { return std::size_t(2 * kMaxRun * max_items(rows) * rows * kLanes); }
std::size_t panel_floats(const ModelConfig& c) { return std::size_t(kLanes) * std::size_t(widest(c) + simd::kGroup); }

}  // namespace

std::size_t NarrowLayer::bytes(const Arithmetic& arithmetic, const ModelConfig& c, int threads, std::int64_t rows) {
  const std::size_t shared = std::size_t(c.n_embd + 2 * c.q_dim() + 2 * c.kv_dim());
  return std::size_t(rows) * (shared + std::size_t(threads) * std::size_t(c.n_embd)) * sizeof(float) +
         std::size_t(threads) * (RowTile::bytes(arithmetic, LinearUse::decode, rows, widest_own(c, LinearUse::decode)) +
                                 (output_floats(rows) + panel_floats(c)) * sizeof(float)) +
         RowTile::bytes(arithmetic, LinearUse::decode, rows, c.n_ff);
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
  if (use == LinearUse::decode) {
    act_tile_ = RowTile(arithmetic, use, rows, c.n_ff);
    act_tile_.begin(rows, c.n_ff);
  } else {
    act_ = Array<float>(m * std::size_t(c.n_ff), "decode rows");
  }
  own_.resize(std::size_t(team.size()));
  team.run([&](int thread) {  // each thread touches its own first
    own_[std::size_t(thread)] = std::make_unique<Own>(
        Own{RowTile(arithmetic, use, rows, widest_own(c, use)), Array<float>(m * std::size_t(c.n_embd), "decode rows"),
            Array<float>(output_floats(rows), "decode rows"), Array<float>(panel_floats(c), "weight panel")});
  });
}

NarrowLayer::Phase NarrowLayer::phase(SharedWork& work, std::initializer_list<const PackedTensor*> matrices,
                                      bool paired) const {
  // Two runs at once where the kernels fetch ahead of both; else an item of one, half as large, leaves less to wait for
  // at the end: 1.2 % of a token of the 1B shape on two Zen 4 cores.
  Phase phase{&work, {}, 0, paired, simd::fetches_ahead ? 2 : 1, kMaxRun, 0};
  std::int64_t panels = 0;
  std::size_t bytes = 0;  // of the widest panel
  for (const PackedTensor* w : matrices) {
    phase.w[phase.matrices++] = w;
    panels += w->panels();
    bytes = std::max(bytes, w->panel_bytes());
  }
  while (phase.each > 1 && !paired &&
         (std::size_t(phase.sides * phase.each) * bytes > kMaxItemBytes ||
          panels < phase.sides * phase.each * kItemsPerThread * team_.size()))
    phase.each /= 2;
  for (int i = 0; i < phase.matrices; ++i)
    if (!paired || i == 0) phase.items += phase.items_of(*phase.w[i]);
  return phase;
}

std::int64_t NarrowLayer::Phase::items_of(const PackedTensor& matrix) const {
  return ceil_div(matrix.panels(), paired ? each : sides * each);
}

bool NarrowLayer::Phase::floats() const {
  return std::any_of(w, w + matrices, [](const PackedTensor* one) { return one->is_float(); });
}

NarrowLayer::Phase NarrowLayer::projections(const LayerWeights& layer, bool with_kv) {
  return with_kv ? phase(qkv_work_, {&layer.q.w, &layer.k.w, &layer.v.w}, false)
                 : phase(qkv_work_, {&layer.q.w}, false);
}

NarrowLayer::Phase NarrowLayer::head(const Weights& weights) { return phase(head_work_, {&weights.output()}, false); }

NarrowLayer::Item NarrowLayer::item_of(const Phase& phase, Range items) const {
  std::int64_t n = items.end - items.begin;
  const auto run = [&](const PackedTensor& w, std::int64_t i) {
    return Range{std::min(i * phase.each, w.panels()), std::min((i + n) * phase.each, w.panels())};
  };
  if (phase.paired) {
    const Range both = run(*phase.w[0], items.begin);
    return {n, 0, {phase.w[0], phase.w[1]}, {both, both}};
  }
  Range share = run_with(phase.items, team_.size(), items.begin);  // the thread's whose items they are
  std::int64_t item = items.begin;
  int matrix = 0;
  for (std::int64_t all; item >= (all = phase.items_of(*phase.w[matrix])); ++matrix)
    item -= all, share.begin -= all, share.end -= all;
  const PackedTensor& w = *phase.w[matrix];
  const std::int64_t begin = std::max<std::int64_t>(share.begin, 0), end = std::min(share.end, phase.items_of(w));
  n = std::min(n, end - item);
  if (phase.sides == 1) return {n, matrix, {&w, &w}, {run(w, item), {}}};
  // of the share's 2 (end − begin) runs in this matrix, the first half one after another beside the second half
  return {n, matrix, {&w, &w}, {run(w, begin + item), run(w, end + item)}};
}

simd::PanelRuns NarrowLayer::next_of(const Phase& phase, std::int64_t item, int thread, const Phase& following) const {
  if (!simd::fetches_ahead) return {};
  const auto runs = [this](const Phase& of, std::int64_t i) {
    const Item next = item_of(of, {i, i + 1});
    return simd::PanelRuns{{next.w[0]->panel(next.runs[0].begin), next.w[1]->panel(next.runs[1].begin)}, {}, 0};
  };
  if (item + 1 < split(phase.items, team_.size(), thread).end) return runs(phase, item + 1);
  const Range first = split(following.items, team_.size(), thread);
  return first.begin < first.end ? runs(following, first.begin) : simd::PanelRuns{};
}

template <class Fn>
void NarrowLayer::for_each_panel(const Item& item, const Fn& fn) {
  std::int64_t place = 0;
  for (int r = 0; r < 2; ++r)
    for (std::int64_t p = item.runs[r].begin; p < item.runs[r].end; ++p) fn(place++, r, p);
}

NarrowLayer::Strides NarrowLayer::multiply_panels(int thread, const Phase& phase, const Item& item,
                                                  const simd::PanelRuns& next, float* y) const {
  const Own& own = *own_[std::size_t(thread)];
  const RowTile& tile = phase.work == &down_work_ && use_ == LinearUse::decode ? act_tile_ : own.tile;
  if (use_ == LinearUse::prefill) {
    for_each_panel(item, [&](std::int64_t place, int r, std::int64_t p) {
      tile.multiply_panel(*item.w[r], p, own.panel.data(), y + place * rows_ * kLanes);
    });
    return {kLanes, rows_ * kLanes};
  }
  const std::int64_t row = std::int64_t(output_floats(rows_)) / rows_;
  const auto [first, second] = item.runs;
  const std::int64_t n = first.end - first.begin, m = second.end - second.begin;
  const void *a = item.w[0]->panel(first.begin), *b = m > 0 ? item.w[1]->panel(second.begin) : nullptr;
  if (n == m && item.w[0]->packing() == item.w[1]->packing()) {
    tile.multiply_packed(*item.w[0], {{a, b}, {next.panels[0], next.panels[1]}, n}, y, row);
  } else {
    tile.multiply_packed(*item.w[0], {{a}, {}, n}, y, row);
    if (m > 0) tile.multiply_packed(*item.w[1], {{b}, {}, m}, y + n * kLanes, row);
  }
  return {row, kLanes};
}

// A phase's work is used again only after another one.
template <class Fetch, class Body>
void NarrowLayer::share(int thread, const Phase& phase, const Phase& following, const Fetch& fetch, const Body& body) {
  float* y = own_[std::size_t(thread)]->y.data();
  for (Range mine; (mine = phase.work->next(thread, phase.items, max_items(rows_))).begin < mine.end;) {
    while (mine.begin < mine.end) {
      const Item item = item_of(phase, mine);
      mine.begin += item.items;
      const std::int64_t panels = item.runs[0].end - item.runs[0].begin + item.runs[1].end - item.runs[1].begin;
      fetch_lines(y, panels * rows_ * kLanes * std::int64_t(sizeof(float)));
      fetch(item);
      body(item, multiply_panels(thread, phase, item, next_of(phase, mine.begin - 1, thread, following), y), y);
    }
  }
  clocks_[thread].lap(Stage::gemm);
  team_.barrier();
  clocks_[thread].start();
  phase.work->reset(thread);
}

void NarrowLayer::normalise(int thread, const std::vector<float>& weight, const Phase& phase) {
  Own& own = *own_[std::size_t(thread)];
  const std::int64_t d = config_.n_embd;
  for (std::int64_t i = 0; i < rows_; ++i)
    arithmetic_.kernels->rms_norm(x_.data() + i * d, weight.data(), d, config_.rms_eps, own.normed.data() + i * d);
  own.tile.prepare_all(own.normed.data(), d, rows_, d, phase.floats());
  clocks_[thread].lap(Stage::rest);
}

void NarrowLayer::fetch_places(const Item& item, const float* out, std::int64_t ld) const {
  for (std::int64_t i = 0; i < rows_; ++i)
    for (const Range& run : item.runs)
      fetch_lines(out + i * ld + run.begin * kLanes, (run.end - run.begin) * kLanes * std::int64_t(sizeof(float)));
}

void NarrowLayer::multiply(int thread, const Phase& phase, const Phase& following, const Job* jobs) {
  const simd::KernelTable& kt = *arithmetic_.kernels;
  const auto fetch = [&](const Item& item) { fetch_places(item, jobs[item.matrix].out, jobs[item.matrix].ld); };
  share(thread, phase, following, fetch, [&](const Item& item, Strides at, float* y) {
    const Job& job = jobs[item.matrix];
    const std::vector<float>& bias = job.linear->bias;
    for (std::int64_t i = 0; i < rows_; ++i)
      for_each_panel(item, [&](std::int64_t place, int, std::int64_t p) {
        const std::int64_t lanes = std::min<std::int64_t>(kLanes, job.linear->w.rows() - p * kLanes);
        float *from = y + i * at.row + place * at.place, *out = job.out + i * job.ld + p * kLanes;
        if (!bias.empty()) kt.add(from, bias.data() + p * kLanes, lanes);
        if (job.accumulate)
          kt.add(out, from, lanes);
        else
          std::memcpy(out, from, std::size_t(lanes) * sizeof(float));
      });
  });
}

void NarrowLayer::project(int thread, const LayerWeights& layer, bool with_kv) {
  clocks_[thread].start();
  const Phase qkv = projections(layer, with_kv);
  normalise(thread, layer.attn_norm, qkv);
  const Job jobs[] = {{&layer.q, q(), config_.q_dim(), false},
                      {&layer.k, k(), config_.kv_dim(), false},
                      {&layer.v, v(), config_.kv_dim(), false}};
  multiply(thread, qkv, phase(output_work_, {&layer.o.w}, false), jobs);
}

void NarrowLayer::output_and_mlp(int thread, const LayerWeights& layer, const Phase& following) {
  const Phase output = phase(output_work_, {&layer.o.w}, false), down = phase(down_work_, {&layer.down.w}, false),
              gate_up = phase(gate_up_work_, {&layer.gate.w, &layer.up.w}, true);
  clocks_[thread].start();
  RowTile& tile = own_[std::size_t(thread)]->tile;
  tile.prepare_all(attention(), config_.q_dim(), rows_, config_.q_dim(), output.floats());
  clocks_[thread].lap(Stage::rest);
  const Job output_job{&layer.o, x(), config_.n_embd, true};
  multiply(thread, output, gate_up, &output_job);

  normalise(thread, layer.ffn_norm, gate_up);
  // act[16p ..] = silu(gate) ∘ up, the same panels of both matrices
  const auto silu = silu_mul(arithmetic_, use_);
  const std::int64_t f = config_.n_ff;
  const auto columns = [&](const Item& item) {
    return Range{item.runs[0].begin * kLanes, std::min(item.runs[0].end * kLanes, f)};
  };
  const auto fetch = [&](const Item& item) {
    if (use_ == LinearUse::prefill) return;
    const auto [first, end] = columns(item);
    for (std::int64_t i = 0; i < rows_; ++i) act_tile_.fetch(i, first, end - first);
  };
  share(thread, gate_up, down, fetch, [&](const Item& item, Strides at, float* y) {
    const std::int64_t panels = item.runs[0].end - item.runs[0].begin;
    // All panels in one call where they lie one behind the other: three runs by turns, 6.2, 7.3 and 5.4 us a layer of
    // 1B instead of 8.3, 8.3 and 7.8.
    const std::int64_t at_once = at.place == kLanes ? panels : 1;
    for (std::int64_t i = 0; i < rows_; ++i)
      for (std::int64_t place = 0; place < panels; place += at_once) {
        const std::int64_t p = item.runs[0].begin + place,
                           lanes = std::min<std::int64_t>(at_once * kLanes, f - p * kLanes);
        float *gates = y + i * at.row + place * at.place, *ups = gates + panels * at.place;
        if (!layer.gate.bias.empty()) arithmetic_.kernels->add(gates, layer.gate.bias.data() + p * kLanes, lanes);
        if (!layer.up.bias.empty()) arithmetic_.kernels->add(ups, layer.up.bias.data() + p * kLanes, lanes);
        silu(gates, ups, lanes, use_ == LinearUse::prefill ? act_.data() + i * f + p * kLanes : gates);
      }
    if (use_ == LinearUse::prefill) return;
    // once, by the thread that has them in L1: of 8192 values 8 us less than by each thread for itself
    const auto [first, end] = columns(item);
    for (std::int64_t i = 0; i < rows_; ++i) act_tile_.prepare(i, first, end - first, y + i * at.row, down.floats());
  });

  if (use_ == LinearUse::prefill)
    tile.prepare_all(act_.data(), f, rows_, f);
  else  // the other threads' too, all at once and not line by line as they are used
    for (std::int64_t i = 0; i < rows_; ++i) act_tile_.fetch(i, 0, f);
  clocks_[thread].lap(Stage::rest);
  const Job down_job{&layer.down, x(), config_.n_embd, true};
  multiply(thread, down, following, &down_job);
}

void NarrowLayer::output_head(int thread, const Weights& weights, float* out, const HeadDone& done) {
  clocks_[thread].start();
  const Phase phase = head(weights);
  normalise(thread, weights.output_norm, phase);
  const std::int64_t vocab = weights.output().rows();
  const std::vector<float>& bias = weights.output_bias;
  const auto fetch = [&](const Item& item) {
    if (out) fetch_places(item, out, vocab);
  };
  share(thread, phase, {}, fetch, [&](const Item& item, Strides at, float* y) {
    for (std::int64_t i = 0; i < rows_; ++i) {
      for_each_panel(item, [&](std::int64_t place, int, std::int64_t p) {
        const std::int64_t lanes = std::min<std::int64_t>(kLanes, vocab - p * kLanes);
        float* from = y + i * at.row + place * at.place;
        if (!bias.empty()) arithmetic_.kernels->add(from, bias.data() + p * kLanes, lanes);
        if (out) std::memcpy(out + i * vocab + p * kLanes, from, std::size_t(lanes) * sizeof(float));
      });
      const float* logits = y + i * at.row;
      for (const Range& run : item.runs) {
        if (done && run.begin < run.end) done(i, {run.begin * kLanes, std::min(run.end * kLanes, vocab)}, logits);
        logits += (run.end - run.begin) * at.place;
      }
    }
  });
}

}  // namespace fastkv::cpu
