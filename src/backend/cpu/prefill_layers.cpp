// The two halves of a layer in prefill: K and V of all rows; then, row tile by row tile, everything else.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.hpp"
#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

constexpr std::int64_t kNarrowRows = 4;  // up to so many rows, matrices are split over threads instead of rows

double flops(const PackedTensor& w, std::int64_t rows) {
  return 2.0 * double(rows) * double(w.rows()) * double(w.cols());
}

}  // namespace

std::size_t CpuBackend::Tile::bytes(const Arithmetic& arithmetic, const ModelConfig& c, const AttentionShape& shape,
                                    std::int64_t rows) {
  const std::int64_t widest = std::max({c.n_embd, c.q_dim(), c.n_ff});
  const std::int64_t floats = rows * (c.n_embd + round_up(c.q_dim(), simd::kLanes) + c.q_dim() +
                                      2 * round_up(c.n_ff, simd::kLanes) + round_up(c.n_embd, simd::kLanes)) +
                              16 * (widest + 32);
  return RowTile::bytes(arithmetic, rows, widest) + AttentionTile::bytes(arithmetic, shape, rows) +
         std::size_t(floats) * sizeof(float);
}

CpuBackend::Tile::Tile(const Arithmetic& arithmetic, const ModelConfig& c, const AttentionShape& shape,
                       std::int64_t rows)
    : input(arithmetic, rows, std::max({c.n_embd, c.q_dim(), c.n_ff})), attention(arithmetic, shape, rows) {
  const auto make = [rows](std::int64_t width) { return Array<float>(std::size_t(rows * width), "tile"); };
  normed = make(c.n_embd);
  q = make(round_up(c.q_dim(), simd::kLanes));
  attended = make(c.q_dim());
  gate = make(round_up(c.n_ff, simd::kLanes));
  up = make(round_up(c.n_ff, simd::kLanes));
  out = make(round_up(c.n_embd, simd::kLanes));
  panel = Array<float>(std::size_t(simd::kLanes) * std::size_t(std::max({c.n_embd, c.q_dim(), c.n_ff}) + 32), "tile");
}

void CpuBackend::make_tiles(std::int64_t rows) {
  if (tiles_rows_ == rows) return;
  tiles_.clear();
  tiles_.resize(std::size_t(team_batch_->size()));
  // each thread touches its own first
  team_batch_->run(
      [&](int thread) { tiles_[std::size_t(thread)] = std::make_unique<Tile>(arithmetic_, config_, shape_, rows); });
  tiles_rows_ = rows;
}

std::vector<const PackedTensor*> CpuBackend::key_value_weights(const LayerWeights& l) { return {&l.k.w, &l.v.w}; }
std::vector<const PackedTensor*> CpuBackend::finish_weights(const LayerWeights& l) {
  return {&l.q.w, &l.o.w, &l.gate.w, &l.up.w, &l.down.w};
}

CpuBackend::LayerPanels& CpuBackend::panels(std::vector<LayerPanels>& half, int layer,
                                            const std::vector<const PackedTensor*>& weights) {
  half.resize(keep_panels_ ? std::size_t(config_.n_layer) : 1);
  LayerPanels& panels = half[keep_panels_ ? std::size_t(layer) : 0];
  if (panels.layer == layer) return panels;
  const std::size_t bytes = PanelSet::bytes(arithmetic_, weights);
  if (panels.memory.bytes() < bytes) panels.memory = Buffer(bytes, "weight panels", huge_pages_);
  panels.set = std::make_unique<PanelSet>(arithmetic_, weights, panels.memory.as<std::uint8_t>());
  panels.layer = -1;
  return panels;
}

std::unique_ptr<LayerState> CpuBackend::begin_layer(int layer, const Hidden& hidden, const ScoreNeeds& needs,
                                                    RunControl& control) {
  const auto& x = static_cast<const CpuHidden&>(hidden);
  const LayerWeights& weights = weights_.layers[std::size_t(layer)];
  const std::int64_t n = x.n(), rows = tile_rows(n), width = config_.n_embd, kv = config_.kv_dim(), d = shape_.d;
  const simd::KernelTable& kt = *arithmetic_.kernels;
  auto state = std::make_unique<CpuLayerState>();
  state->n = n;
  state->k = Array<float>(std::size_t(n * kv), "keys of a layer", huge_pages_);
  state->v = Array<float>(std::size_t(n * kv), "values of a layer", huge_pages_);
  state->key_panels = Buffer(key_panel_bytes(arithmetic_, shape_, n), "key panels", huge_pages_);
  state->value_panels = Buffer(value_panel_bytes(arithmetic_, shape_, n), "value panels", huge_pages_);
  make_tiles(rows);
  LayerPanels& unpacked = panels(panels_key_value_, layer, key_value_weights(weights));

  WorkQueue unpack_queue(unpacked.layer == layer ? 0 : unpacked.set->count());
  WorkQueue tile_queue(ceil_div(n, rows)), block_queue(shape_.heads_kv * key_blocks(n));
  team_batch_->run([&](int thread) {
    Tile& tile = *tiles_[std::size_t(thread)];
    for (std::int64_t i; (i = unpack_queue.next()) >= 0;) unpacked.set->unpack(i, tile.panel.data());
    team_batch_->barrier();
    for (std::int64_t item; (item = tile_queue.next()) >= 0 && !control.stopping();) {
      const std::int64_t begin = item * rows, m = std::min(rows, n - begin);
      for (std::int64_t i = 0; i < m; ++i)
        kt.rms_norm(x.x.data() + (begin + i) * width, weights.attn_norm.data(), width, config_.rms_eps,
                    tile.normed.data() + i * width);
      tile.input.prepare(tile.normed.data(), width, m, width);
      // k = rope(h · Wkᵀ), v = h · Wvᵀ, head by head into [K][n][d]; up to 16·P columns are written
      for (const bool is_key : {true, false}) {
        const Linear& linear = is_key ? weights.k : weights.v;
        const std::int64_t ld = linear.w.rows16();
        tile.input.multiply((*unpacked.set)[is_key ? 0 : 1], tile.q.data(), ld);
        linear.add_bias(kt, tile.q.data(), ld, m);
        float* to = is_key ? state->k.data() : state->v.data();
        for (std::int64_t i = 0; i < m; ++i) {
          float* row = tile.q.data() + i * ld;
          if (is_key) kt.rope(row, x.cos_sin.data() + (begin + i) * d, shape_.heads_kv, shape_.d);
          for (int h = 0; h < shape_.heads_kv; ++h)
            std::memcpy(to + (std::int64_t(h) * n + begin + i) * d, row + h * d, std::size_t(d) * sizeof(float));
        }
      }
      control.add_work(flops(weights.k.w, m) + flops(weights.v.w, m));
      if (thread == 0) control.poll();
    }
    team_batch_->barrier();
    for (std::int64_t item; (item = block_queue.next()) >= 0 && !control.stopping();)
      pack_key_block(arithmetic_, shape_, *state, int(item / key_blocks(n)), item % key_blocks(n));
  });
  control.throw_if_stopped();
  unpacked.layer = layer;
  if (needs.rows > 0) score_queries(weights, x, *state, std::min(needs.rows, n));
  return state;
}

void CpuBackend::score_queries(const LayerWeights& weights, const CpuHidden& x, CpuLayerState& state,
                               std::int64_t rows) {
  const std::int64_t first = x.n() - rows, width = config_.n_embd, q_dim = config_.q_dim();
  state.score_q = Array<float>(std::size_t(rows * q_dim), "scoring queries");
  state.score_rows = rows;
  constexpr std::int64_t kChunk = 64;  // rows that share one read of Wq
  for (std::int64_t begin = 0; begin < rows; begin += kChunk) {
    const std::int64_t m = std::min(kChunk, rows - begin);
    NarrowLayer narrow(arithmetic_, config_, *team_batch_, *clocks_batch_, NarrowUse::prefill, m);
    std::memcpy(narrow.x(), x.x.data() + (first + begin) * width, std::size_t(m * width) * sizeof(float));
    team_batch_->run([&](int thread) { narrow.project(thread, weights, false); });
    for (std::int64_t i = 0; i < m; ++i)
      arithmetic_.kernels->rope(narrow.q() + i * q_dim, x.cos_sin.data() + (first + begin + i) * shape_.d, shape_.heads,
                                shape_.d);
    std::memcpy(state.score_q.data() + begin * q_dim, narrow.q(), std::size_t(m * q_dim) * sizeof(float));
  }
}

void CpuBackend::finish_layer(int layer, Hidden& hidden, const LayerState& layer_state, const Selection* next,
                              RunControl& control) {
  auto& x = static_cast<CpuHidden&>(hidden);
  const auto& state = static_cast<const CpuLayerState&>(layer_state);
  check(state.n == x.n(), ErrorCode::internal, "finish_layer: ", x.n(), " rows, state of ", state.n);
  const auto* rows = next ? &static_cast<const CpuSelection*>(next)->rows[0] : nullptr;
  if (rows && std::int64_t(rows->size()) <= kNarrowRows)
    finish_narrow(weights_.layers[std::size_t(layer)], x, state, *rows, control);
  else
    finish_wide(layer, x, state, rows, control);
  control.throw_if_stopped();
}

void CpuBackend::finish_narrow(const LayerWeights& weights, CpuHidden& x, const CpuLayerState& state,
                               const std::vector<std::int32_t>& rows, RunControl& control) {
  CpuSelection selection;
  selection.heads = 1;
  selection.rows.push_back(rows);
  gather(x, selection);
  const std::int64_t m = std::int64_t(rows.size()), width = config_.n_embd, q_dim = config_.q_dim();
  make_tiles(tile_rows(state.n));
  NarrowLayer narrow(arithmetic_, config_, *team_batch_, *clocks_batch_, NarrowUse::prefill, m);
  std::memcpy(narrow.x(), x.x.data(), std::size_t(m * width) * sizeof(float));
  std::vector<std::int32_t> limits;
  for (std::int32_t row : rows) limits.push_back(row + 1);
  WorkQueue heads(shape_.heads_kv);
  team_batch_->run([&](int thread) {
    narrow.project(thread, weights, false);
    StageWatch& watch = (*clocks_batch_)[thread];
    for (std::int64_t h; (h = heads.next()) >= 0 && !control.stopping();) {
      for (std::int64_t i = 0; i < m; ++i)
        arithmetic_.kernels->rope(narrow.q() + i * q_dim + h * shape_.group() * shape_.d,
                                  x.cos_sin.data() + i * shape_.d, shape_.group(), shape_.d);
      tiles_[std::size_t(thread)]->attention.run(state, int(h), narrow.q(), limits.data(), m, narrow.attention());
    }
    watch.lap(Stage::attention);
    team_batch_->barrier();
    narrow.output_and_mlp(thread, weights);
  });
  std::memcpy(x.x.data(), narrow.x(), std::size_t(m * width) * sizeof(float));
  for (const PackedTensor* w : finish_weights(weights)) control.add_work(flops(*w, m));
  for (std::int32_t limit : limits) control.add_work(4.0 * double(q_dim) * double(limit));
  control.poll();
}

void CpuBackend::finish_wide(int layer, CpuHidden& x, const CpuLayerState& state, const std::vector<std::int32_t>* rows,
                             RunControl& control) {
  const LayerWeights& weights = weights_.layers[std::size_t(layer)];
  const simd::KernelTable& kt = *arithmetic_.kernels;
  const std::int64_t total = rows ? std::int64_t(rows->size()) : x.n();
  const std::int64_t tile_size = tile_rows(state.n), width = config_.n_embd, q_dim = config_.q_dim(), ff = config_.n_ff;
  if (rows) {
    CpuSelection selection;
    selection.heads = 1;
    selection.rows.push_back(*rows);
    gather(x, selection);
  }
  make_tiles(tile_size);
  LayerPanels& unpacked = panels(panels_finish_, layer, finish_weights(weights));
  const PanelSet& set = *unpacked.set;  // q, o, gate, up, down

  WorkQueue unpack_queue(unpacked.layer == layer ? 0 : set.count()), tile_queue(ceil_div(total, tile_size));
  team_batch_->run([&](int thread) {
    Tile& t = *tiles_[std::size_t(thread)];
    std::int32_t limits[4096];
    for (std::int64_t i; (i = unpack_queue.next()) >= 0;) unpacked.set->unpack(i, t.panel.data());
    team_batch_->barrier();
    // The last tiles see the most keys: taking them first keeps the threads busy to the end.
    for (std::int64_t item; (item = tile_queue.next()) >= 0 && !control.stopping();) {
      const std::int64_t begin = (ceil_div(total, tile_size) - 1 - item) * tile_size,
                         m = std::min(tile_size, total - begin);
      float* residual = x.x.data() + begin * width;
      const auto normalise = [&](const std::vector<float>& weight) {
        for (std::int64_t i = 0; i < m; ++i)
          kt.rms_norm(residual + i * width, weight.data(), width, config_.rms_eps, t.normed.data() + i * width);
        t.input.prepare(t.normed.data(), width, m, width);
      };
      const auto add_output = [&](const Linear& linear) {  // residual += out
        const std::int64_t ld = linear.w.rows16();
        linear.add_bias(kt, t.out.data(), ld, m);
        for (std::int64_t i = 0; i < m; ++i) kt.add(residual + i * width, t.out.data() + i * ld, width);
      };
      double work = 0;
      for (std::int64_t i = 0; i < m; ++i) {
        limits[i] = (rows ? (*rows)[std::size_t(begin + i)] : std::int32_t(begin + i)) + 1;
        work += 4.0 * double(q_dim) * double(limits[i]);
      }

      // q = rope(norm(x) · Wqᵀ), rows of H·d
      normalise(weights.attn_norm);
      const std::int64_t q_ld = weights.q.w.rows16();
      t.input.multiply(set[0], t.q.data(), q_ld);
      weights.q.add_bias(kt, t.q.data(), q_ld, m);
      for (std::int64_t i = 0; i < m; ++i) {
        kt.rope(t.q.data() + i * q_ld, x.cos_sin.data() + (begin + i) * shape_.d, shape_.heads, shape_.d);
        if (q_ld != q_dim)  // close the gaps: attention takes rows of H·d
          std::memmove(t.q.data() + i * q_dim, t.q.data() + i * q_ld, std::size_t(q_dim) * sizeof(float));
      }
      for (int h = 0; h < shape_.heads_kv && !control.stopping(); ++h) {
        t.attention.run(state, h, t.q.data(), limits, m, t.attended.data());
        control.add_work(work / shape_.heads_kv);
        if (thread == 0) control.poll();
      }
      if (control.stopping()) break;
      // x += attended · Woᵀ
      t.input.prepare(t.attended.data(), q_dim, m, q_dim);
      t.input.multiply(set[1], t.out.data(), weights.o.w.rows16());
      add_output(weights.o);
      // x += (silu(h · Wgᵀ) ∘ (h · Wuᵀ)) · Wdᵀ, h = norm(x)
      normalise(weights.ffn_norm);
      const std::int64_t ff_ld = weights.gate.w.rows16();
      t.input.multiply(set[2], t.gate.data(), ff_ld);
      t.input.multiply(set[3], t.up.data(), ff_ld);
      weights.gate.add_bias(kt, t.gate.data(), ff_ld, m);
      weights.up.add_bias(kt, t.up.data(), ff_ld, m);
      for (std::int64_t i = 0; i < m; ++i)
        kt.silu_mul(t.gate.data() + i * ff_ld, t.up.data() + i * ff_ld, ff, t.gate.data() + i * ff_ld);
      t.input.prepare(t.gate.data(), ff_ld, m, ff);
      t.input.multiply(set[4], t.out.data(), weights.down.w.rows16());
      add_output(weights.down);
      for (const PackedTensor* w : finish_weights(weights)) control.add_work(flops(*w, m));
      if (thread == 0) control.poll();
    }
  });
  unpacked.layer = layer;
}

}  // namespace fastkv::cpu
