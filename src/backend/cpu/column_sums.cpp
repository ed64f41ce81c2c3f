// Column sums of the attention of many rows: tiles of it are computed twice, once for each row's maximum and sum, once
// for its share of each column (spec/methods.md 4, S10).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/scores.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

constexpr std::int64_t kKeys = 512;  // of a tile
constexpr std::int64_t kRows = 128;  // query rows of a tile: positions x the heads that share its keys

std::int64_t tile_positions(const AttentionShape& shape) { return std::max<std::int64_t>(1, kRows / shape.group()); }

std::size_t own_bytes(const AttentionShape& shape) {
  const std::int64_t rows = tile_positions(shape) * shape.group();
  return std::size_t(rows * (kKeys + round_up(shape.d, 32)) + shape.group() * kKeys) * sizeof(float);
}

/// One thread's tile: queries of some positions of a key/value head's group, [group][positions].
class Tile {
 public:
  Tile(const ScoreContext& context, const CpuLayerState& state, const ColumnScores& wanted, float* own)
      : context_(context),
        state_(state),
        wanted_(wanted),
        z_(own),
        q_(z_ + tile_positions(context.shape) * context.shape.group() * kKeys),
        sums_(q_ + tile_positions(context.shape) * context.shape.group() * round_up(context.shape.d, 32)) {}

  float* sums() const { return sums_; }  ///< [group][kKeys]
  std::int64_t rows() const { return context_.shape.group() * positions_; }
  std::int64_t position(std::int64_t row) const { return first_ + row % positions_; }
  float* z(std::int64_t row) const { return z_ + row * kKeys; }

  /// Scoring rows [first, first + positions) of key/value head `head`, in the layout that the products take.
  void load(int head, std::int64_t first, std::int64_t positions) {
    const int group = context_.shape.group(), d = context_.shape.d, d32 = round_up(d, 32);
    head_ = head, first_ = first, positions_ = positions;
    const std::int64_t from = state_.query_rows - wanted_.rows + first;
    for (std::int64_t r = 0; r < rows(); ++r) {
      const float* q =
          state_.kv.q.data() + ((from + r % positions) * context_.shape.heads + head * group + r / positions) * d;
      if (context_.arithmetic.bf16_attention) {
        std::uint16_t* to = reinterpret_cast<std::uint16_t*>(q_) + r * d32;
        context_.arithmetic.kernels->f32_to_bf16(q, d, to);
        std::fill(to + d, to + d32, std::uint16_t(0));
      } else {
        std::memcpy(q_ + r * d, q, std::size_t(d) * sizeof(float));
      }
    }
  }

  /// z[r, j] = q_r·k_{key + j} of the tile's rows with up to kKeys keys, as the layer's attention multiplies them.
  void multiply(std::int64_t key) const {
    const simd::KernelTable& kt = *context_.arithmetic.kernels;
    const std::int64_t panels = ceil_div(std::min(kKeys, state_.n - key), simd::kLanes), d = context_.shape.d;
    const std::size_t head_bytes =
        key_panel_bytes(context_.arithmetic, context_.shape, state_.n) / std::size_t(context_.shape.heads_kv);
    const auto* keys = state_.kv.key_panels.as<std::uint8_t>() + std::size_t(head_) * head_bytes;
    if (context_.arithmetic.bf16_attention) {
      const std::int64_t d32 = round_up(d, 32);
      kt.gemm_bf16(rows(), d32, reinterpret_cast<const std::uint16_t*>(q_), d32,
                   reinterpret_cast<const std::uint16_t*>(keys) + key * d32, panels, z_, kKeys, false);
    } else {
      kt.gemm_f32(rows(), d, q_, d, reinterpret_cast<const float*>(keys) + key * d, panels, z_, kKeys, false);
    }
  }

  /// Of the keys [key, key + kKeys), how many row `row` sees.
  std::int64_t seen(std::int64_t row, std::int64_t key) const {
    return std::clamp<std::int64_t>(seen_keys(wanted_, state_.n, position(row)) - key, 0, kKeys);
  }
  /// Whether some row sees any of them: the first may see all (a mask that is not causal), the last one most.
  bool sees(std::int64_t key) const { return seen(0, key) > 0 || seen(positions_ - 1, key) > 0; }

 private:
  const ScoreContext& context_;
  const CpuLayerState& state_;
  const ColumnScores& wanted_;
  float *z_, *q_, *sums_;
  int head_ = 0;
  std::int64_t first_ = 0, positions_ = 0;
};

}  // namespace

std::size_t column_sum_bytes(const AttentionShape& shape, int threads, std::int64_t rows) {
  return std::size_t(2 * shape.heads * rows) * sizeof(float) + std::size_t(threads) * own_bytes(shape);
}

void column_sums(const ScoreContext& context, const CpuLayerState& state, const ColumnScores& wanted,
                 CpuScores& scores) {
  const simd::KernelTable& kt = *context.arithmetic.kernels;
  const AttentionShape& shape = context.shape;
  const std::int64_t n = state.n, rows = wanted.rows, each = tile_positions(shape), tiles = ceil_div(rows, each);
  const std::int64_t chunks = ceil_div(scores.n, kKeys);
  const int group = shape.group();
  const std::size_t bytes = column_sum_bytes(shape, context.team.size(), rows);
  if (context.memory->work.bytes() < bytes) {
    context.memory->work = Buffer();
    context.memory->work = Buffer(bytes, "column sums", context.memory->huge_pages);
  }
  float *const maximum = context.memory->work.as<float>(), *const weight = maximum + shape.heads * rows;  // [H][rows]
  float* const own = weight + shape.heads * rows;

  SharedWork row_tiles(context.team), columns(context.team);
  context.team.run([&](int thread) {
    Tile tile(context, state, wanted, own + std::size_t(thread) * (own_bytes(shape) / sizeof(float)));
    const auto load = [&](std::int64_t head, std::int64_t t) {
      tile.load(int(head), t * each, std::min(each, rows - t * each));
    };
    const auto at = [&](std::int64_t head, std::int64_t r) {
      return (head * group + r / (tile.rows() / group)) * rows + tile.position(r);
    };
    // m_i = max_j z[i, j], λ_i / l_i with l_i = Σ_j exp(z[i, j] − m_i), over the keys that row i sees
    for (std::int64_t item;
         (item = row_tiles.next(thread, shape.heads_kv * tiles)) >= 0 && !context.control.stopping();) {
      const std::int64_t head = item / tiles;
      load(head, tiles - 1 - item % tiles);  // the longest first
      for (std::int64_t r = 0; r < tile.rows(); ++r) maximum[at(head, r)] = -INFINITY, weight[at(head, r)] = 0;
      for (std::int64_t key = 0; key < n && tile.sees(key); key += kKeys) {
        tile.multiply(key);
        for (std::int64_t r = 0; r < tile.rows(); ++r) {
          const std::int64_t seen = tile.seen(r, key);
          if (seen == 0) continue;
          float &m = maximum[at(head, r)], &l = weight[at(head, r)];
          const float most = std::max(m, shape.scale * kt.row_max(tile.z(r), seen));
          l = l * std::exp(m - most) + kt.exp_sum(tile.z(r), seen, shape.scale, most);
          m = most;
        }
        if (thread == 0) context.control.poll();
      }
      for (std::int64_t r = 0; r < tile.rows(); ++r)
        weight[at(head, r)] = row_weight(wanted, tile.position(r)) / weight[at(head, r)];
    }
    context.team.barrier();
    // S[h, j] = Σ_i (λ_i / l_i) exp(z[i, j] − m_i), tile by tile
    for (std::int64_t item;
         (item = columns.next(thread, shape.heads_kv * chunks)) >= 0 && !context.control.stopping();) {
      const std::int64_t head = item / chunks, key = item % chunks * kKeys, width = std::min(kKeys, scores.n - key);
      for (std::int64_t t = 0; t < tiles && !context.control.stopping(); ++t) {
        load(head, t);
        if (!tile.sees(key)) continue;
        tile.multiply(key);
        std::fill_n(tile.sums(), group * kKeys, 0.0f);
        for (std::int64_t r = 0; r < tile.rows(); ++r) {
          const std::int64_t seen = std::min(tile.seen(r, key), width);
          if (seen == 0) continue;
          kt.exp_sum(tile.z(r), seen, shape.scale, maximum[at(head, r)]);
          kt.axpy(weight[at(head, r)], tile.z(r), seen, tile.sums() + r / (tile.rows() / group) * kKeys);
        }
        for (int g = 0; g < group; ++g) kt.add(scores.row(int(head) * group + g) + key, tile.sums() + g * kKeys, width);
        if (thread == 0) context.control.poll();
      }
    }
  });
}

}  // namespace fastkv::cpu
