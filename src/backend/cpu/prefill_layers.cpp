// The two halves of a layer in prefill: K and V of all rows; then, a run of rows at a time, everything else.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/wide_linear.hpp"
#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

constexpr std::int64_t kNarrowRows = 4;       // up to so many rows, each thread prepares them all for itself
constexpr std::int64_t kNormRows = 32;        // rows of an item where rows are handled one by one
constexpr std::int64_t kAttentionRows = 128;  // most query rows of an attention item

double flops(const PackedTensor& w, std::int64_t rows) {
  return 2.0 * double(rows) * double(w.rows()) * double(w.cols());
}

std::int64_t widest(const ModelConfig& c) { return std::max({c.n_embd, c.q_dim(), c.n_ff}); }
/// Inputs of the second tile: what attention gives, then silu(gate) ∘ up.
std::int64_t widest_hidden(const ModelConfig& c) { return std::max(c.q_dim(), c.n_ff); }

/// Key/value heads of an attention item: their output is a piece of a RowTile's row.
int heads_together(const Arithmetic& arithmetic, const AttentionShape& s) {
  const std::int64_t unit = column_unit(arithmetic);
  return int(std::min<std::int64_t>(s.heads_kv, unit / std::gcd(unit, std::int64_t(s.group()) * s.d)));
}
std::int64_t attended_floats(const Arithmetic& arithmetic, const AttentionShape& s, std::int64_t rows) {
  return rows * heads_together(arithmetic, s) * s.group() * s.d;
}

/// Rotates columns [first, first + n) of a row of heads of d, x pointing at column `first`; cos_sin as rope's.
void rotate(const simd::KernelTable& kt, float* x, const float* cos_sin, std::int64_t first, std::int64_t n, int d) {
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t at = (first + i) % d;
    const int heads = at == 0 ? int((n - i) / d) : 0;
    const std::int64_t width = heads > 0 ? heads * d : std::min<std::int64_t>(d - at, n - i);
    kt.rope(x + i, cos_sin + at, std::max(heads, 1), heads > 0 ? d : int(width));
    i += width;
  }
}

}  // namespace

// Attention items: small enough that there are several for the threads.
std::int64_t CpuBackend::attention_rows(std::int64_t rows) const {
  return std::clamp<std::int64_t>(round_up(ceil_div(rows, 8), 16), 32, kAttentionRows);
}

std::int64_t CpuBackend::batch_rows(std::int64_t n) const {
  if (tile_rows_ > 0) return std::min<std::int64_t>(tile_rows_, n);
  // Each batch reads and unpacks all weights once: with 2,048 rows that is a twentieth of the work. Equal batches, so
  // that no row more makes a batch of one.
  constexpr std::int64_t kMost = 2048;
  return std::min(n, round_up(ceil_div(n, ceil_div(n, kMost)), kNormRows));
}

CpuBackend::Space CpuBackend::space_for(std::int64_t rows) const {
  const ModelConfig& c = config_;
  const auto k32 = [](std::int64_t k) { return round_up(k, simd::kGroup); };
  Space space;
  space.rows = rows;
  const auto fit = [&](int matrices, std::int64_t outputs, std::int64_t k) {
    const WideShape shape(arithmetic_, matrices, outputs, k32(k), rows, team_batch_->size());
    space.panel_bytes = std::max(space.panel_bytes, std::size_t(matrices) * shape.panel_bytes(arithmetic_));
    space.out_floats = std::max(space.out_floats, std::size_t(shape.held_rows * shape.out_stride(matrices)));
  };
  fit(1, c.q_dim(), c.n_embd), fit(1, c.kv_dim(), c.n_embd), fit(1, c.n_embd, c.q_dim());
  fit(2, c.n_ff, c.n_embd), fit(1, c.n_embd, c.n_ff);
  return space;
}

std::size_t CpuBackend::space_bytes(std::int64_t rows) const {
  const ModelConfig& c = config_;
  const Space space = space_for(rows);
  const std::size_t own =
      space.panel_bytes + space.out_floats * sizeof(float) +
      std::size_t(simd::kLanes * round_up(widest(c), simd::kGroup)) * sizeof(float) +
      AttentionTile::bytes(shape_, attention_rows(rows)) +
      std::size_t(attended_floats(arithmetic_, shape_, attention_rows(rows)) + c.n_embd) * sizeof(float);
  return RowTile::bytes(arithmetic_, LinearUse::prefill, rows, c.n_embd) +
         RowTile::bytes(arithmetic_, LinearUse::prefill, rows, widest_hidden(c)) +
         std::size_t(rows * c.q_dim()) * sizeof(float) + std::size_t(team_batch_->size()) * own;
}

void CpuBackend::make_space(std::int64_t rows) {
  if (space_ && rows <= space_->rows) return;
  const ModelConfig& c = config_;
  space_.reset();
  space_ = std::make_unique<Space>(space_for(rows));
  space_->input = RowTile(arithmetic_, LinearUse::prefill, rows, c.n_embd, huge_pages_);
  space_->hidden = RowTile(arithmetic_, LinearUse::prefill, rows, widest_hidden(c), huge_pages_);
  space_->q = Array<float>(std::size_t(rows * c.q_dim()), "queries", huge_pages_);
  space_->own.resize(std::size_t(team_batch_->size()));
  team_batch_->run([&](int thread) {  // each thread touches its own first
    space_->own[std::size_t(thread)] = std::make_unique<OwnSpace>(OwnSpace{
        {Buffer(space_->panel_bytes, "weight panels", huge_pages_),
         Array<float>(space_->out_floats, "sums", huge_pages_),
         Array<float>(std::size_t(simd::kLanes * round_up(widest(c), simd::kGroup)), "weight panel")},
        AttentionTile(arithmetic_, shape_, attention_rows(rows)),
        Array<float>(std::size_t(attended_floats(arithmetic_, shape_, attention_rows(rows))), "attention output"),
        Array<float>(std::size_t(c.n_embd), "row")});
  });
}

void CpuBackend::normalise(int thread, SharedWork& work, const float* x, std::int64_t m,
                           const std::vector<float>& weight) {
  float* row = space_->own[std::size_t(thread)]->row.data();
  const std::int64_t width = config_.n_embd;
  for (std::int64_t item; (item = work.next(thread, ceil_div(m, kNormRows))) >= 0;)
    for (std::int64_t i = item * kNormRows; i < std::min(m, (item + 1) * kNormRows); ++i) {
      arithmetic_.kernels->rms_norm(x + i * width, weight.data(), width, config_.rms_eps, row);
      space_->input.prepare(i, 0, width, row);
    }
}

LayerKv CpuBackend::take_layer_kv(const CpuHidden& x, const ScoreNeeds& needs) const {
  LayerKv kv = std::exchange(*x.spare, {});
  const std::int64_t n = x.n();
  const std::size_t queries = std::size_t(query_rows(n, needs.rows) * config_.q_dim());
  if (kv.q.size() != queries) kv.q = {};
  if (kv.n != n || !(needs.keys_only || kv.value_panels)) {
    kv = {};  // before the next is allocated
    kv.n = n;
    const std::size_t floats = std::size_t(n * config_.kv_dim());
    kv.k = Array<float>(floats, "keys of a layer", huge_pages_);
    if (!needs.keys_only) {
      kv.v = Array<float>(floats, "values of a layer", huge_pages_);
      kv.key_panels = Buffer(key_panel_bytes(arithmetic_, shape_, n), "key panels", huge_pages_);
      kv.value_panels = Buffer(value_panel_bytes(arithmetic_, shape_, n), "value panels", huge_pages_);
    }
  }
  if (kv.q.size() != queries) kv.q = Array<float>(queries, "scoring queries", huge_pages_);
  return kv;
}

std::unique_ptr<LayerState> CpuBackend::begin_layer(int layer, const Hidden& hidden, const ScoreNeeds& needs,
                                                    RunControl& control) {
  const auto& x = static_cast<const CpuHidden&>(hidden);
  const LayerWeights& weights = weights_.layers[std::size_t(layer)];
  const std::int64_t n = x.n(), most = batch_rows(n), width = config_.n_embd, d = shape_.d;
  const simd::KernelTable& kt = *arithmetic_.kernels;
  auto state = std::make_unique<CpuLayerState>(take_layer_kv(x, needs), x.spare);
  state->query_rows = query_rows(n, needs.rows);
  const std::int64_t first_query = n - state->query_rows, q_dim = config_.q_dim();
  make_space(most);

  for (std::int64_t begin = 0; begin < n; begin += most) {
    const std::int64_t m = std::min(most, n - begin);
    const WideLinear key(arithmetic_, {&weights.k}, {0, m}, team_batch_->size());
    const WideLinear value(arithmetic_, {&weights.v}, {0, m}, team_batch_->size());
    const WideLinear query(arithmetic_, {&weights.q}, {std::clamp<std::int64_t>(first_query - begin, 0, m), m},
                           team_batch_->size());
    const std::int64_t kv_items = key.items() + (needs.keys_only ? 0 : value.items());
    const std::int64_t items = kv_items + query.items();
    SharedWork norm_work(*team_batch_), work(*team_batch_);
    space_->input.begin(m, width);
    team_batch_->run([&](int thread) {
      const OwnSpace& own = *space_->own[std::size_t(thread)];
      StageWatch& watch = (*clocks_batch_)[thread];
      watch.start();
      normalise(thread, norm_work, x.x.data() + begin * width, m, weights.attn_norm);
      watch.lap(Stage::rest);
      team_batch_->barrier();
      watch.start();
      // k = rope(h · Wkᵀ), v = h · Wvᵀ, head by head into [K][n][d]
      for (std::int64_t item; (item = work.next(thread, items)) >= 0 && !control.stopping();) {
        const bool is_key = item < key.items();
        float* to = is_key ? state->kv.k.data() : state->kv.v.data();
        const auto spread = [&](std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t count, float* y,
                                std::int64_t ldy) {
          for (std::int64_t i = 0; i < rows; ++i, y += ldy) {
            const std::int64_t at = begin + row + i;
            if (is_key) rotate(kt, y, x.cos_sin.data() + at * d, first, count, shape_.d);
            for (std::int64_t c = first; c < first + count;) {
              const std::int64_t piece = std::min(d - c % d, first + count - c);
              std::memcpy(to + (c / d * n + at) * d + c % d, y + (c - first), std::size_t(piece) * sizeof(float));
              c += piece;
            }
          }
        };
        // q = rope(h · Wqᵀ) of the last rows, [rows][H·d]
        const auto take = [&](std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t count, float* y,
                              std::int64_t ldy) {
          for (std::int64_t i = 0; i < rows; ++i, y += ldy) {
            const std::int64_t at = begin + row + i;
            rotate(kt, y, x.cos_sin.data() + at * d, first, count, shape_.d);
            std::memcpy(state->kv.q.data() + (at - first_query) * q_dim + first, y, std::size_t(count) * sizeof(float));
          }
        };
        if (item >= kv_items)
          query.run(item - kv_items, space_->input, own.wide, control, thread == 0, watch, take);
        else
          (is_key ? key : value)
              .run(is_key ? item : item - key.items(), space_->input, own.wide, control, thread == 0, watch, spread);
      }
    });
    control.throw_if_stopped();
  }
  SharedWork block_work(*team_batch_);
  const std::int64_t blocks = needs.keys_only ? 0 : shape_.heads_kv * key_blocks(n);
  team_batch_->run([&](int thread) {
    StageWatch& watch = (*clocks_batch_)[thread];
    watch.start();
    for (std::int64_t item; (item = block_work.next(thread, blocks)) >= 0 && !control.stopping();)
      pack_key_block(arithmetic_, shape_, *state, int(item / key_blocks(n)), item % key_blocks(n));
    watch.lap(Stage::attention);
  });
  control.throw_if_stopped();
  return state;
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
    finish_wide(weights_.layers[std::size_t(layer)], x, state, rows, control);
  control.throw_if_stopped();
}

void CpuBackend::finish_narrow(const LayerWeights& weights, CpuHidden& x, const CpuLayerState& state,
                               const std::vector<std::int32_t>& rows, RunControl& control) {
  CpuSelection selection;
  selection.heads = 1;
  selection.rows.push_back(rows);
  gather(x, selection);
  const std::int64_t m = std::int64_t(rows.size()), width = config_.n_embd, q_dim = config_.q_dim();
  make_space(m);
  NarrowLayer narrow(arithmetic_, config_, *team_batch_, *clocks_batch_, LinearUse::prefill, m);
  std::memcpy(narrow.x(), x.x.data(), std::size_t(m * width) * sizeof(float));
  std::vector<std::int32_t> limits;
  for (std::int32_t row : rows) limits.push_back(row + 1);
  const std::int64_t first_query = state.n - state.query_rows;
  const bool known = rows.front() >= first_query;  // the queries of all rows
  for (std::int64_t i = 0; known && i < m; ++i)
    std::memcpy(narrow.q() + i * q_dim, state.kv.q.data() + (rows[std::size_t(i)] - first_query) * q_dim,
                std::size_t(q_dim) * sizeof(float));
  SharedWork heads(*team_batch_);
  team_batch_->run([&](int thread) {
    StageWatch& watch = (*clocks_batch_)[thread];
    watch.start();
    if (!known) narrow.project(thread, weights, false);
    for (std::int64_t h; (h = heads.next(thread, shape_.heads_kv)) >= 0 && !control.stopping();) {
      for (std::int64_t i = 0; !known && i < m; ++i)
        arithmetic_.kernels->rope(narrow.q() + i * q_dim + h * shape_.group() * shape_.d,
                                  x.cos_sin.data() + i * shape_.d, shape_.group(), shape_.d);
      const std::int64_t at = h * shape_.group() * shape_.d;
      space_->own[std::size_t(thread)]->attention.run(state, int(h), {narrow.q() + at, q_dim}, limits.data(), m,
                                                      {narrow.attention() + at, q_dim});
    }
    watch.lap(Stage::attention);
    team_batch_->barrier();
    narrow.output_and_mlp(thread, weights, {});
  });
  std::memcpy(x.x.data(), narrow.x(), std::size_t(m * width) * sizeof(float));
  for (const Linear* l : {&weights.q, &weights.o, &weights.gate, &weights.up, &weights.down})
    if (l != &weights.q || !known) control.add_work(flops(l->w, m));
  for (std::int32_t limit : limits) control.add_work(4.0 * double(q_dim) * double(limit));
  control.poll();
}

void CpuBackend::finish_wide(const LayerWeights& weights, CpuHidden& x, const CpuLayerState& state,
                             const std::vector<std::int32_t>* rows, RunControl& control) {
  if (rows) {
    CpuSelection selection;
    selection.heads = 1;
    selection.rows.push_back(*rows);
    gather(x, selection);
  }
  const std::int64_t total = x.n(), most = batch_rows(total);
  make_space(most);
  std::vector<std::int32_t> limits(static_cast<std::size_t>(most));
  for (std::int64_t begin = 0; begin < total; begin += most) {
    const std::int64_t m = std::min(most, total - begin);
    for (std::int64_t i = 0; i < m; ++i)
      limits[std::size_t(i)] = (rows ? (*rows)[std::size_t(begin + i)] : std::int32_t(begin + i)) + 1;
    finish_rows(weights, x, begin, m, state, limits.data(), control);
    control.throw_if_stopped();
  }
}

void CpuBackend::finish_rows(const LayerWeights& weights, CpuHidden& x, std::int64_t begin, std::int64_t m,
                             const CpuLayerState& state, const std::int32_t* limits, RunControl& control) {
  const simd::KernelTable& kt = *arithmetic_.kernels;
  const int threads = team_batch_->size();
  const std::int64_t width = config_.n_embd, q_dim = config_.q_dim(), d = shape_.d;
  const std::int64_t tile = attention_rows(m), tiles = ceil_div(m, tile);
  float* residual = x.x.data() + begin * width;
  RowTile &input = space_->input, &hidden = space_->hidden;
  // Rows from `known` on have their queries in the state.
  const std::int64_t first_query = state.n - state.query_rows;
  const std::int64_t known = std::upper_bound(limits, limits + m, first_query) - limits;
  const WideLinear query(arithmetic_, {&weights.q}, {0, known}, threads);
  const WideLinear output(arithmetic_, {&weights.o}, {0, m}, threads);
  const WideLinear gate_up(arithmetic_, {&weights.gate, &weights.up}, {0, m}, threads);
  const WideLinear down(arithmetic_, {&weights.down}, {0, m}, threads);
  const auto silu = silu_mul(arithmetic_, LinearUse::prefill);
  const std::int64_t up_at = gate_up.shape().panels * simd::kLanes;
  const int together = heads_together(arithmetic_, shape_);
  const std::int64_t head_items = ceil_div(shape_.heads_kv, together);
  const ThreadTeam& team = *team_batch_;
  SharedWork norm_work(team), query_work(team), attention_work(team), output_work(team), ffn_norm_work(team),
      gate_up_work(team), down_work(team);

  team_batch_->run([&](int thread) {
    OwnSpace& own = *space_->own[std::size_t(thread)];
    StageWatch& watch = (*clocks_batch_)[thread];
    const auto wait = [&] {
      team_batch_->barrier();
      watch.start();
    };
    const auto multiply = [&](const WideLinear& linear, SharedWork& work, const RowTile& from, const auto& epilogue) {
      for (std::int64_t item; (item = work.next(thread, linear.items())) >= 0 && !control.stopping();)
        linear.run(item, from, own.wide, control, thread == 0, watch, epilogue);
      wait();
    };
    const auto add_to_residual = [&](std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n,
                                     const float* y, std::int64_t ldy) {
      for (std::int64_t i = 0; i < count; ++i) kt.add(residual + (row + i) * width + first, y + i * ldy, n);
    };
    const auto norm_of_residual = [&](SharedWork& work, std::int64_t rows, const std::vector<float>& weight) {
      normalise(thread, work, residual, rows, weight);
      watch.lap(Stage::rest);
      wait();
    };

    // A RowTile is shared: one thread says what it holds next while the others wait.
    if (thread == 0) input.begin(m, width), hidden.begin(m, q_dim);
    wait();
    // q = rope(norm(x) · Wqᵀ), rows of H·d
    const Range copied = split(m - known, threads, thread);
    for (std::int64_t i = known + copied.begin; i < known + copied.end; ++i)
      std::memcpy(space_->q.data() + i * q_dim, state.kv.q.data() + (limits[i] - 1 - first_query) * q_dim,
                  std::size_t(q_dim) * sizeof(float));
    norm_of_residual(norm_work, known, weights.attn_norm);
    multiply(query, query_work, input,
             [&](std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n, float* y, std::int64_t ldy) {
               for (std::int64_t i = 0; i < count; ++i, y += ldy) {
                 rotate(kt, y, x.cos_sin.data() + (begin + row + i) * d, first, n, shape_.d);
                 std::memcpy(space_->q.data() + (row + i) * q_dim + first, y, std::size_t(n) * sizeof(float));
               }
             });
    // The last tiles see the most keys: taking them first keeps the threads busy to the end.
    for (std::int64_t item; (item = attention_work.next(thread, tiles * head_items)) >= 0 && !control.stopping();) {
      const std::int64_t row = (tiles - 1 - item / head_items) * tile, count = std::min(tile, m - row);
      const int first = int(item % head_items) * together, heads = std::min(together, shape_.heads_kv - first);
      const std::int64_t each = shape_.group() * d, columns = heads * each;
      for (int h = 0; h < heads; ++h)
        own.attention.run(state, first + h, {space_->q.data() + row * q_dim + (first + h) * each, q_dim}, limits + row,
                          count, {own.attended.data() + h * each, columns});
      for (std::int64_t i = 0; i < count; ++i)
        hidden.prepare(row + i, first * each, columns, own.attended.data() + i * columns);
      double keys = 0;
      for (std::int64_t i = 0; i < count; ++i) keys += limits[row + i];
      control.add_work(4.0 * double(columns) * keys);
      if (thread == 0) control.poll();
    }
    watch.lap(Stage::attention);
    wait();
    // x += attended · Woᵀ
    multiply(output, output_work, hidden, add_to_residual);
    // x += (silu(h · Wgᵀ) ∘ (h · Wuᵀ)) · Wdᵀ, h = norm(x)
    if (thread == 0) hidden.begin(m, config_.n_ff);
    norm_of_residual(ffn_norm_work, m, weights.ffn_norm);
    multiply(gate_up, gate_up_work, input,
             [&](std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n, float* y, std::int64_t ldy) {
               for (std::int64_t i = 0; i < count; ++i, y += ldy) {
                 silu(y, y + up_at, n, y);
                 hidden.prepare(row + i, first, n, y);
               }
             });
    multiply(down, down_work, hidden, add_to_residual);
  });
}

}  // namespace fastkv::cpu
