// Column sums of the attention of some rows, on tensor cores: tiles of it are computed twice, once for each row's
// softmax, once for its share of each column (spec/methods.md 4, S10).
#include "backend/cuda/kernels/scores.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "backend/cuda/kernels/cached_row.cuh"
#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/shared_tile.cuh"
#include "core/index_rules.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

// Products are keys · queriesᵀ: a matrix of 16 keys x 8 queries, of which lane l holds queries 2(l%4), 2(l%4)+1 of keys
// l/4 and l/4 + 8. So few query rows waste little, and a row's maximum stays within a lane until the end.
//
// A unit is 8 scoring rows of one query head, the last of a head filled up with rows that weigh nothing. The units of
// the heads that share a key/value head stand one after another, head by head.
constexpr int kUnit = 8;
constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr float kLowest = -0x1p100f;  // below every score, and finite: differences of two of them are 0

struct Operands {
  const f16* q;  ///< [rows][H][d]
  const f16* k;  ///< [K][n][d]
  int n, rows, causal_rows, columns;
  double last_weight;
  int heads, heads_kv, d;
  float scale;     ///< of exponents of 2
  int head_units;  ///< units of one query head
  int units;       ///< of one key/value head
  int chunks;      ///< of the keys, for the first pass
  int chunk_keys;  ///< a multiple of 64
  float2*
      partial;  ///< [K][units][8][chunks]: of a row and a chunk, the largest score and Σ 2^(scale (score − largest))
  float2* row_scale;  ///< [K][units][8]: a row's largest scaled score, λ / Σ 2^(scaled score − largest)
  float* scores;      ///< [H][columns]

  __device__ int row_of(int packed) const { return packed / kUnit % head_units * kUnit + packed % kUnit; }
  /// Query of packed row `packed`, of another row where it only fills up.
  __device__ const f16* query(int head_kv, int packed) const {
    const int unit = min(packed / kUnit, units - 1), row = min(row_of(packed), rows - 1);
    return q + (std::int64_t(row) * heads + head_kv * (heads / heads_kv) + unit / head_units) * d;
  }
  /// Keys that a row sees; all for a row that only fills up.
  __device__ int seen(int row) const { return row < rows ? int(seen_keys(n, rows, causal_rows, row)) : n; }
  /// The most and the fewest keys that a row of units [first, first + count) sees; the last row of a head sees all.
  __device__ int most_seen(int first, int count) const {
    const int end = min(first + count, units);
    if (first / head_units != (end - 1) / head_units || end % head_units == 0) return n;
    return max(seen(first % head_units * kUnit), seen((end - 1) % head_units * kUnit + kUnit - 1));
  }
  __device__ int fewest_seen(int first, int count) const {
    const int end = min(first + count, units);
    const int first_causal = causal_rows < 0 ? 0 : rows - causal_rows;
    if (first / head_units != (end - 1) / head_units) return min(seen(0), seen(first_causal));
    const int begin = first % head_units * kUnit;
    return min(seen(begin), seen(max(begin, first_causal)));
  }
};

// ---- first pass: each row's largest score and sum of exponentials ---------------------------------------------------

constexpr int kTileKeys = 64;
constexpr int kWarpUnits = 4;  // whose queries stay in registers: 4 products use every fragment of keys

/// Largest score and Σ 2^(scale (score − largest)) of two sets of keys together.
__device__ __forceinline__ float2 joined(float2 a, float2 b, float scale) {
  const float top = fmaxf(a.x, b.x);
  return make_float2(top, fmaf(a.y, exp2_approx((a.x - top) * scale), b.y * exp2_approx((b.x - top) * scale)));
}

template <int kD, bool kSplitKeys>
constexpr std::size_t row_sums_bytes() {
  return SharedTile<kD>::bytes((kSplitKeys ? 1 : kWarps) * kWarpUnits * kUnit + 2 * kTileKeys);
}

// A block takes units x one chunk of the keys of a key/value head. Its warps take 4 units each, or, where there are few
// (kSplitKeys), the same 4 units and a quarter of each tile's keys each. At most 226 registers, none spilled (sm_90).
template <class Dim, bool kSplitKeys>
__global__ void __launch_bounds__(kThreads, 2) row_sums_kernel(Operands p) {
  using Tile = SharedTile<Dim::kSize>;
  constexpr int kSteps = Dim::kSize / 16, kBlockUnits = (kSplitKeys ? 1 : kWarps) * kWarpUnits;
  constexpr int kKeyRows = kSplitKeys ? 1 : kTileKeys / 16;  // matrices of 16 keys that a warp takes of a tile
  __shared__ float2 of_warp[kSplitKeys ? kWarps : 1][kWarpUnits * kUnit];
  const int d = Dim::values(p.d);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int head_kv = int(blockIdx.y), chunk = int(blockIdx.z);
  const int first = int(gridDim.x - 1 - blockIdx.x) * kBlockUnits;  // later rows see more: the longest blocks first
  const int own_first = first + (kSplitKeys ? 0 : warp * kWarpUnits), own_key = kSplitKeys ? warp * 16 : 0;
  const int begin = chunk * p.chunk_keys, end = min(begin + p.chunk_keys, p.most_seen(first, kBlockUnits));
  const int own_seen = p.seen(p.row_of(own_first * kUnit + lane));  // of one of the warp's 32 rows each

  std::byte* const queries = shared_memory<std::byte>();
  std::byte* const keys = queries + Tile::bytes(kBlockUnits * kUnit);  // [2 stages][kTileKeys]
  const f16* const head_keys = p.k + std::int64_t(head_kv) * p.n * d;
  const auto copy_keys = [&](int key, int stage) {
    const f16* const from = head_keys + std::int64_t(key) * d;
    Tile::template copy<kTileKeys, kThreads>(keys + stage * Tile::bytes(kTileKeys), p.n - key, d,
                                             [&](int row) { return from + row * d; });
  };
  Tile::template copy<kBlockUnits * kUnit, kThreads>(queries, (p.units - first) * kUnit, d,
                                                     [&](int row) { return p.query(head_kv, first * kUnit + row); });
  copy_keys(begin, 0);
  copy_commit();

  std::uint32_t q[kSteps][kWarpUnits][2];
  float top[kWarpUnits][2], sum[kWarpUnits][2] = {};
  for (auto& of_unit : top) of_unit[0] = of_unit[1] = kLowest;
  for (int key = begin; key < end; key += kTileKeys) {
    const int stage = (key - begin) / kTileKeys % 2;
    copy_wait<0>();
    __syncthreads();  // this tile is there; the one before is no longer read
    if (key + kTileKeys < end) copy_keys(key + kTileKeys, stage ^ 1);
    copy_commit();
    if (key == begin) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int pair = 0; pair < kWarpUnits / 2; ++pair) {
          std::uint32_t b[2][2];
          Tile::load_right(b, queries, ((own_first - first) + 2 * pair) * kUnit, step);
          for (int i = 0; i < 2; ++i) q[step][2 * pair + i][0] = b[i][0], q[step][2 * pair + i][1] = b[i][1];
        }
      }
    }
    if (!__any_sync(kAllLanes, key + own_key < own_seen)) continue;

    const std::byte* const tile = keys + stage * Tile::bytes(kTileKeys);
    float s[kKeyRows][kWarpUnits][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int t = 0; t < kKeyRows; ++t) {
        std::uint32_t a[4];
        Tile::load_left(a, tile, own_key + t * 16, step);
#pragma unroll
        for (int u = 0; u < kWarpUnits; ++u) mma_16x8x16(s[t][u], a, q[step][u]);
      }
    }
    if (!__all_sync(kAllLanes, key + kTileKeys <= own_seen)) {
#pragma unroll
      for (int u = 0; u < kWarpUnits; ++u) {
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const int seen = __shfl_sync(kAllLanes, own_seen, u * kUnit + lane % 4 * 2 + column);
          const int limit = seen - key - own_key - lane / 4;
#pragma unroll
          for (int t = 0; t < kKeyRows; ++t)
#pragma unroll
            for (int half = 0; half < 2; ++half)
              if (t * 16 + half * 8 >= limit) s[t][u][2 * half + column] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kWarpUnits; ++u) {
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        float most = top[u][column];
#pragma unroll
        for (int t = 0; t < kKeyRows; ++t) most = fmaxf(most, fmaxf(s[t][u][column], s[t][u][2 + column]));
        const float base = most * p.scale;
        float total = sum[u][column] * exp2_approx(fmaf(top[u][column], p.scale, -base));
#pragma unroll
        for (int t = 0; t < kKeyRows; ++t)
          total += exp2_approx(fmaf(s[t][u][column], p.scale, -base)) +
                   exp2_approx(fmaf(s[t][u][2 + column], p.scale, -base));
        top[u][column] = most, sum[u][column] = total;
      }
    }
  }

  // The lanes l, l + 4, … hold the keys of the same rows; then, of split keys, the warps.
  const auto store = [&](int packed, float2 of_row) {
    if (packed < p.units * kUnit)
      p.partial[(std::int64_t(head_kv) * p.units * kUnit + packed) * p.chunks + chunk] = of_row;
  };
#pragma unroll
  for (int u = 0; u < kWarpUnits; ++u) {
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      float2 of_row = make_float2(top[u][column], sum[u][column]);
#pragma unroll
      for (int other = 4; other < kWarp; other *= 2) {
        float2 given;
        given.x = __shfl_xor_sync(kAllLanes, of_row.x, other);
        given.y = __shfl_xor_sync(kAllLanes, of_row.y, other);
        of_row = joined(of_row, given, p.scale);
      }
      const int row = u * kUnit + lane * 2 + column;
      if constexpr (kSplitKeys) {
        if (lane < 4) of_warp[warp][row] = of_row;
      } else {
        if (lane < 4) store(own_first * kUnit + row, of_row);
      }
    }
  }
  if constexpr (kSplitKeys) {
    __syncthreads();
    if (warp > 0) return;
    float2 of_row = of_warp[0][lane];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) of_row = joined(of_row, of_warp[w][lane], p.scale);
    store(first * kUnit + lane, of_row);
  }
}

// A warp takes a row, its lanes the chunks.
__global__ void __launch_bounds__(kThreads) row_scale_kernel(Operands p) {
  const std::int64_t packed = std::int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (packed >= std::int64_t(p.heads_kv) * p.units * kUnit) return;
  const int lane = int(threadIdx.x) % kWarp, row = p.row_of(int(packed % (std::int64_t(p.units) * kUnit)));
  if (row >= p.rows) {
    if (lane == 0) p.row_scale[packed] = make_float2(-kLowest, 0);  // 2^(score − this) is 0
    return;
  }
  const float2* const chunks = p.partial + packed * p.chunks;
  float top = kLowest, sum = 0;
  for (int i = lane; i < p.chunks; i += kWarp) top = fmaxf(top, chunks[i].x);
  top = warp_max(top);
  for (int i = lane; i < p.chunks; i += kWarp) sum += chunks[i].y * exp2_approx((chunks[i].x - top) * p.scale);
  sum = warp_sum(sum);
  if (lane == 0) p.row_scale[packed] = make_float2(top * p.scale, row_weight(p.rows, p.last_weight, row) / sum);
}

// ---- second pass: sums of columns -----------------------------------------------------------------------------------

constexpr int kKeyRows = 2;  // matrices of 16 keys of a warp, in registers
constexpr int kWarpKeys = 16 * kKeyRows, kBlockKeys = kWarps * kWarpKeys;
constexpr int kTileUnits = 8;  // whose queries are in shared memory together
constexpr int kTileRows = kTileUnits * kUnit, kScaleBytes = kTileRows * int(sizeof(float2));

template <int kD>
constexpr std::size_t column_sums_bytes() {
  return SharedTile<kD>::bytes(kBlockKeys + 2 * kTileRows) + 2 * kScaleBytes;
}

// A block takes 128 keys of a key/value head and goes through all units that see them, summing in their order. At most
// 156 registers, none spilled, so that 3 blocks are on a multiprocessor (sm_90).
template <class Dim>
__global__ void __launch_bounds__(kThreads, 3) column_sums_kernel(Operands p) {
  using Tile = SharedTile<Dim::kSize>;
  constexpr int kSteps = Dim::kSize / 16;
  const int d = Dim::values(p.d);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int head_kv = int(blockIdx.y), block_key = int(blockIdx.x) * kBlockKeys;
  const int own_key = block_key + warp * kWarpKeys + lane / 4;  // and 8, 16, 24 further on
  const int tiles = int(ceil_div(p.units, kTileUnits));
  std::byte* const keys = shared_memory<std::byte>();
  std::byte* const queries = keys + Tile::bytes(kBlockKeys);       // [2 stages][kTileRows]
  std::byte* const scales = queries + 2 * Tile::bytes(kTileRows);  // [2 stages][kTileRows]
  const auto copy_queries = [&](int tile, int stage) {
    const int packed = tile * kTileRows;
    Tile::template copy<kTileRows, kThreads>(queries + stage * Tile::bytes(kTileRows), p.units * kUnit - packed, d,
                                             [&](int row) { return p.query(head_kv, packed + row); });
    const int i = int(threadIdx.x) * 2;  // rows a copy takes
    if (i < kTileRows) {
      const bool valid = packed + i < p.units * kUnit;
      const float2* from = p.row_scale + std::int64_t(head_kv) * p.units * kUnit + (valid ? packed + i : 0);
      copy_async_16(scales + stage * kScaleBytes + i * int(sizeof(float2)), from, valid);
    }
  };
  const auto next = [&](int tile) {  // of which some row sees the block's keys
    while (tile < tiles && p.most_seen(tile * kTileUnits, kTileUnits) <= block_key) ++tile;
    return tile;
  };

  int tile = next(0);
  const f16* const block_keys = p.k + (std::int64_t(head_kv) * p.n + block_key) * d;
  Tile::template copy<kBlockKeys, kThreads>(keys, p.n - block_key, d, [&](int row) { return block_keys + row * d; });
  copy_queries(tile, 0);
  copy_commit();

  std::uint32_t a[kKeyRows][kSteps][4];
  float acc[kKeyRows][2] = {};
  bool loaded = false;
  for (int stage = 0; tile < tiles; stage ^= 1) {
    const int following = next(tile + 1);
    copy_wait<0>();
    __syncthreads();  // this tile is there; the one before is no longer read
    if (following < tiles) copy_queries(following, stage ^ 1);
    copy_commit();
    if (!loaded) {
      loaded = true;
#pragma unroll
      for (int t = 0; t < kKeyRows; ++t)
#pragma unroll
        for (int step = 0; step < kSteps; ++step) Tile::load_left(a[t][step], keys, warp * kWarpKeys + t * 16, step);
    }
    const bool all_see = p.fewest_seen(tile * kTileUnits, kTileUnits) >= block_key + kBlockKeys;
    for (int pair = 0; pair < kTileUnits / 2; ++pair) {
      const int first = tile * kTileUnits + 2 * pair;
      if (first >= p.units) break;
      float s[2][kKeyRows][4] = {};
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        std::uint32_t b[2][2];
        Tile::load_right(b, queries + stage * Tile::bytes(kTileRows), 2 * pair * kUnit, step);
#pragma unroll
        for (int u = 0; u < 2; ++u)
#pragma unroll
          for (int t = 0; t < kKeyRows; ++t) mma_16x8x16(s[u][t], a[t][step], b[u]);
      }
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const int unit = first + u;
        if (unit >= p.units) break;
        const float4 rows = *reinterpret_cast<const float4*>(
            scales + stage * kScaleBytes + ((2 * pair + u) * kUnit + lane % 4 * 2) * int(sizeof(float2)));
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const float base = column ? rows.z : rows.x, weight = column ? rows.w : rows.y;
          const int limit = all_see ? p.n : p.seen(p.row_of(unit * kUnit + lane % 4 * 2 + column));
#pragma unroll
          for (int t = 0; t < kKeyRows; ++t) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const float share = exp2_approx(fmaf(s[u][t][2 * half + column], p.scale, -base));
              if (own_key + t * 16 + half * 8 < limit) acc[t][half] = fmaf(share, weight, acc[t][half]);
            }
          }
        }
        if ((unit + 1) % p.head_units != 0) continue;
        const int head = head_kv * (p.heads / p.heads_kv) + unit / p.head_units;
#pragma unroll
        for (int t = 0; t < kKeyRows; ++t) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float sum = warp_sum<4>(acc[t][half]);
            const int key = own_key + t * 16 + half * 8;
            if (lane % 4 == 0 && key < p.columns) p.scores[std::int64_t(head) * p.columns + key] = sum;
            acc[t][half] = 0;
          }
        }
      }
    }
    tile = following;
  }
}

// ---- the last row's logits ------------------------------------------------------------------------------------------

constexpr int kLogitThreads = 256, kRowLanes = 16, kRowsAtOnce = 8;
constexpr int kLogitKeys = kLogitThreads / kRowLanes * kRowsAtOnce;

// A block takes kLogitKeys keys for one query head, 16 lanes a key; heads that share keys run side by side.
__global__ void __launch_bounds__(kLogitThreads)
    last_row_logits_kernel(const f16* q, const f16* k, std::int64_t n, int heads, int heads_kv, int d, float* scores) {
  using Chunk = RowChunk<CacheType::f16>;
  const int head = int(blockIdx.x), lane = int(threadIdx.x) % kRowLanes, slot = int(threadIdx.x) / kRowLanes;
  const std::int64_t first = std::int64_t(blockIdx.y) * kLogitKeys + slot;
  const std::byte* const keys =
      reinterpret_cast<const std::byte*>(k + std::int64_t(shared_head(head, heads, heads_kv)) * n * d);
  constexpr int kStride = kLogitThreads / kRowLanes;
  Chunk row[kRowsAtOnce] = {}, query = {};
  if (lane * 8 < d) query.load(reinterpret_cast<const std::byte*>(q + head * d), lane, d);
#pragma unroll
  for (int i = 0; i < kRowsAtOnce; ++i)
    if (first + i * kStride < n && lane * 8 < d) row[i].load(keys + (first + i * kStride) * d * 2, lane, d);
  float a[8], sum[kRowsAtOnce];
  query.values(a);
#pragma unroll
  for (int i = 0; i < kRowsAtOnce; ++i) {
    float x[8];
    row[i].values(x);
    sum[i] = a[0] * x[0];
#pragma unroll
    for (int c = 1; c < 8; ++c) sum[i] = fmaf(a[c], x[c], sum[i]);
  }
  sum_each<kRowsAtOnce, kRowLanes>(sum, lane);
  const std::int64_t key = first + first_sum<kRowsAtOnce, kRowLanes>(lane) * kStride;
  if (key < n) scores[std::int64_t(head) * n + key] = sum[0];
}

// ---- host -----------------------------------------------------------------------------------------------------------

/// How column_scores() cuts its work, a function of the shape alone.
struct Cut {
  int head_units, units;  ///< of a query head, of a key/value head
  bool split_keys;        ///< the warps of the first pass share rows, not keys
  int block_units;        ///< of the first pass
  int chunks, chunk_keys;

  Cut(const AttentionShape& shape, std::int64_t rows, std::int64_t n)
      : head_units(int(ceil_div(rows, kUnit))),
        units(head_units * shape.group()),
        split_keys(units <= 2 * kWarpUnits),
        block_units((split_keys ? 1 : kWarps) * kWarpUnits) {
    // keys are split where rows alone would give fewer blocks than keep a large GPU busy, into 256 of them or more
    const std::int64_t blocks = ceil_div(units, block_units) * shape.heads_kv;
    const std::int64_t wanted = std::clamp<std::int64_t>(ceil_div(1024, blocks), 1, ceil_div(n, 256));
    chunk_keys = int(round_up(ceil_div(n, wanted), kTileKeys));
    chunks = int(ceil_div(n, chunk_keys));
  }
  std::int64_t packed_rows(const AttentionShape& shape) const { return std::int64_t(shape.heads_kv) * units * kUnit; }
};

template <class Dim, bool kSplitKeys>
void launch_row_sums(cudaStream_t stream, const Operands& operands, const Cut& cut) {
  const dim3 grid(unsigned(ceil_div(cut.units, cut.block_units)), unsigned(operands.heads_kv), unsigned(cut.chunks));
  launch(stream, grid, dim3(kThreads), row_sums_bytes<Dim::kSize, kSplitKeys>(), row_sums_kernel<Dim, kSplitKeys>,
         operands);
}

}  // namespace

std::size_t column_scores_bytes(const AttentionShape& shape, std::int64_t rows, std::int64_t n) {
  const Cut cut(shape, rows, n);
  return std::size_t(cut.packed_rows(shape)) * std::size_t(cut.chunks + 1) * sizeof(float2);
}

void column_scores(cudaStream_t stream, const AttentionShape& shape, const f16* q, std::int64_t q_rows, const f16* k,
                   std::int64_t n, const ColumnScores& wanted, void* work, float* scores) {
  check(wanted.rows >= 1 && wanted.rows <= std::min(q_rows, n) && wanted.drop <= n, ErrorCode::internal,
        "column_scores: ", wanted.rows, " rows asked, ", q_rows, " kept of ", n);
  if (wanted.drop == n) return;
  const Cut cut(shape, wanted.rows, n);
  Operands operands{.q = q + (q_rows - wanted.rows) * shape.heads * shape.d,
                    .k = k,
                    .n = int(n),
                    .rows = int(wanted.rows),
                    .causal_rows = int(wanted.causal_rows),
                    .columns = int(n - wanted.drop),
                    .last_weight = wanted.last_weight,
                    .heads = shape.heads,
                    .heads_kv = shape.heads_kv,
                    .d = shape.d,
                    .scale = shape.scale * std::numbers::log2e_v<float>,
                    .head_units = cut.head_units,
                    .units = cut.units,
                    .chunks = cut.chunks,
                    .chunk_keys = cut.chunk_keys,
                    .partial = nullptr,
                    .row_scale = static_cast<float2*>(work),
                    .scores = scores};
  operands.partial = operands.row_scale + cut.packed_rows(shape);
  const dim3 columns(unsigned(ceil_div(operands.columns, kBlockKeys)), unsigned(shape.heads_kv));
  with_head_dim(shape.d, [&](auto dim) {
    using Dim = decltype(dim);
    if (cut.split_keys)
      launch_row_sums<Dim, true>(stream, operands, cut);
    else
      launch_row_sums<Dim, false>(stream, operands, cut);
    launch(stream, dim3(unsigned(ceil_div(cut.packed_rows(shape), kWarps))), dim3(kThreads), 0, row_scale_kernel,
           operands);
    launch(stream, columns, dim3(kThreads), column_sums_bytes<Dim::kSize>(), column_sums_kernel<Dim>, operands);
  });
}

void last_row_logits(cudaStream_t stream, const AttentionShape& shape, const f16* q, const f16* k, std::int64_t n,
                     float* scores) {
  const dim3 grid(unsigned(shape.heads), unsigned(ceil_div(n, kLogitKeys)));
  launch(stream, grid, dim3(kLogitThreads), 0, last_row_logits_kernel, q, k, n, shape.heads, shape.heads_kv, shape.d,
         scores);
}

}  // namespace fastkv::cuda
