// Attention of prompt rows on tensor cores: tiles of queries against tiles of keys with an online softmax
// (FlashAttention-2), never an n x n matrix.
#include <cmath>
#include <cstring>
#include <numbers>

#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/shared_tile.cuh"
#include "backend/cuda/kernels/warp.cuh"
#include "core/index_rules.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kKeys = 64;  // of a tile; tiles begin at multiples of it, whatever rows see them
constexpr int kThreads = 128, kWarps = kThreads / kWarp;
// Rows of a warp, in matrices of 16. Two of them share every fragment of keys and values: with one, loads from shared
// memory (4 cycles for what two products of 16 x 8 x 16 use, 4 cycles of one of four tensor cores each) would be the
// limit.
constexpr int kRowTiles = 2, kWarpRows = 16 * kRowTiles;
constexpr int kQueries = kWarps * kWarpRows;
// The largest probability is 2^14, so that float16 keeps those down to 2^-38 of it: many keys together may matter.
constexpr float kRaise = 14;

struct Operands {
  const f16* q;              ///< [m][H][d]
  const std::int32_t* rows;  ///< [m] or null
  int first, m;
  const f16 *k, *v;  ///< [K][n][d]
  int n;
  bf16* out;  ///< [m][H][d]
  int heads, heads_kv, d;
  float scale;  ///< of exponents of 2

  /// Keys that row i sees.
  __device__ int seen(int i) const { return int(visible_keys(rows ? rows[i] : first + i)); }
};

template <int kD>
constexpr std::size_t shared_bytes() {
  return SharedTile<kD>::bytes(kQueries + 2 * 2 * kKeys);
}

template <class Pair>
__device__ __forceinline__ std::uint32_t bits_of(const Pair& pair) {
  std::uint32_t bits;
  std::memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// A block takes kQueries rows of one query head. Blocks start in the order of blockIdx: the longest rows first, so that
// the last to run are short; of one tile all heads, so that those that share keys and values find them in the L2 cache.
// Per row: m the maximum of its scores so far, o = Σ 2^(scale (score − m) + kRaise) v, l the same sum without v. Where
// a row sees none of a tile's keys, m stays, and l and o are multiplied by 1 and get 0 added: its result depends on
// what it sees alone.
template <class Dim>
__global__ void __launch_bounds__(kThreads, 2) attention_prefill_kernel(Operands p) {
  constexpr int kD = Dim::kSize;
  using Tile = SharedTile<kD>;
  constexpr int kSteps = kD / 16;
  // 2 of 8 spill 5 registers, which only masked tiles read again (sm_90a), the others more
  [[maybe_unused]] constexpr int kStepsUnrolled = kD == 128 ? 2 : kSteps;
  constexpr bool kHoldQueries = kD <= 64;  // in registers; wider ones are read again for each tile of keys
  const int d = Dim::values(p.d);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int head = int(blockIdx.x), head_kv = shared_head(head, p.heads, p.heads_kv);
  const int row0 = int(gridDim.y - 1 - blockIdx.y) * kQueries, warp_row = row0 + warp * kWarpRows;
  const auto seen = [&](int row) { return p.seen(min(row, p.m - 1)); };
  const int some_see = seen(row0 + kQueries - 1), warp_sees = seen(warp_row + kWarpRows - 1), all_see = seen(row0);

  std::byte* const queries = shared_memory<std::byte>();
  std::byte* const keys = queries + Tile::bytes(kQueries);  // [2 stages][kKeys]
  std::byte* const values = keys + 2 * Tile::bytes(kKeys);  // the same
  std::byte* const own_queries = queries + Tile::bytes(warp * kWarpRows);
  const f16* const head_keys = p.k + std::int64_t(head_kv) * p.n * d;
  const f16* const head_values = p.v + std::int64_t(head_kv) * p.n * d;
  const auto copy_keys = [&](int key, int stage) {
    const int count = p.n - key;
    const f16 *const from_k = head_keys + std::int64_t(key) * d, *const from_v = head_values + std::int64_t(key) * d;
    Tile::template copy<kKeys, kThreads>(keys + stage * Tile::bytes(kKeys), count, d,
                                         [&](int row) { return from_k + row * d; });
    Tile::template copy<kKeys, kThreads>(values + stage * Tile::bytes(kKeys), count, d,
                                         [&](int row) { return from_v + row * d; });
  };
  const f16* const tile_queries = p.q + (std::int64_t(row0) * p.heads + head) * d;
  Tile::template copy<kQueries, kThreads>(queries, p.m - row0, d,
                                          [&](int row) { return tile_queries + row * p.heads * d; });
  copy_keys(0, 0);
  copy_commit();

  float o[kRowTiles][2 * kSteps][4] = {}, m[kRowTiles][2], l[kRowTiles][2] = {};
  for (auto& of_tile : m) of_tile[0] = of_tile[1] = -INFINITY;
  [[maybe_unused]] std::uint32_t q[kHoldQueries ? kSteps : 1][kRowTiles][4];

  for (int key = 0; key < some_see; key += kKeys) {
    const int stage = key / kKeys % 2;
    copy_wait<0>();
    __syncthreads();  // this tile is there; the one before is no longer read
    if (key + kKeys < some_see) copy_keys(key + kKeys, stage ^ 1);
    copy_commit();
    if constexpr (kHoldQueries) {
      if (key == 0)
        for (int step = 0; step < kSteps; ++step)
          for (int t = 0; t < kRowTiles; ++t) Tile::load_left(q[step][t], own_queries, t * 16, step);
    }
    if (key >= warp_sees) continue;

    // s = q · kᵀ
    const std::byte* const tile_keys = keys + stage * Tile::bytes(kKeys);
    float s[kRowTiles][kKeys / 8][4] = {};
#pragma unroll kStepsUnrolled
    for (int step = 0; step < kSteps; ++step) {
      std::uint32_t a[kRowTiles][4];
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) {
        if constexpr (kHoldQueries)
          for (int i = 0; i < 4; ++i) a[t][i] = q[step][t][i];
        else
          Tile::load_left(a[t], own_queries, t * 16, step);
      }
#pragma unroll
      for (int j = 0; j < kKeys / 16; ++j) {
        std::uint32_t b[2][2];
        Tile::load_right(b, tile_keys, j * 16, step);
#pragma unroll
        for (int t = 0; t < kRowTiles; ++t) {
          mma_16x8x16(s[t][2 * j], a[t], b[0]);
          mma_16x8x16(s[t][2 * j + 1], a[t], b[1]);
        }
      }
    }
    if (key + kKeys > all_see) {
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int limit = seen(warp_row + t * 16 + half * 8 + lane / 4) - key - lane % 4 * 2;
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int i = 0; i < 2; ++i)
              if (j * 8 + i >= limit) s[t][j][2 * half + i] = -INFINITY;
        }
      }
    }

    // s becomes 2^(scale (s − m) + kRaise)
    float shrink[kRowTiles][2];
    bool moved = false;
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = m[t][half];
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) top = fmaxf(top, fmaxf(s[t][j][2 * half], s[t][j][2 * half + 1]));
        top = warp_max<4>(top);
        shrink[t][half] = exp2_approx((m[t][half] - top) * p.scale);
        moved |= top != m[t][half];
        m[t][half] = top;
        const float base = fmaf(top, p.scale, -kRaise);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i)
            sum += s[t][j][i] = exp2_approx(fmaf(s[t][j][i], p.scale, -base));
        }
        l[t][half] = fmaf(l[t][half], shrink[t][half], sum);
      }
    }
    if (__any_sync(kAllLanes, moved)) {  // maxima seldom move after a row's first tiles
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
        for (int c = 0; c < 2 * kSteps; ++c)
#pragma unroll
          for (int i = 0; i < 4; ++i) o[t][c][i] *= shrink[t][i / 2];
    }

    // o += s · v, s rounded to float16: a product's result lies as the next one's left matrix wants it
    const std::byte* const tile_values = values + stage * Tile::bytes(kKeys);
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      std::uint32_t a[kRowTiles][4];
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          a[t][i] = bits_of(__floats2half2_rn(s[t][2 * j + i / 2][i % 2 * 2], s[t][2 * j + i / 2][i % 2 * 2 + 1]));
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        std::uint32_t b[2][2];
        Tile::load_right_rows(b, tile_values, j * 16, step);
#pragma unroll
        for (int t = 0; t < kRowTiles; ++t) {
          mma_16x8x16(o[t][2 * step], a[t], b[0]);
          mma_16x8x16(o[t][2 * step + 1], a[t], b[1]);
        }
      }
    }
  }

  // o / l to where the warp's queries were, and from there in chunks of 16 bytes
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float inverse = 1 / warp_sum<4>(l[t][half]);
#pragma unroll
      for (int c = 0; c < 2 * kSteps; ++c)
        *reinterpret_cast<std::uint32_t*>(own_queries + Tile::offset(t * 16 + half * 8 + lane / 4, c) + lane % 4 * 4) =
            bits_of(__floats2bfloat162_rn(o[t][c][2 * half] * inverse, o[t][c][2 * half + 1] * inverse));
    }
  }
  __syncwarp();
  for (int i = lane; i < kWarpRows * Tile::kChunks; i += kWarp) {
    const int row = i / Tile::kChunks, chunk = i % Tile::kChunks;
    if (warp_row + row < p.m && chunk * 8 < d)
      *reinterpret_cast<uint4*>(p.out + (std::int64_t(warp_row + row) * p.heads + head) * d + chunk * 8) =
          *reinterpret_cast<const uint4*>(own_queries + Tile::offset(row, chunk));
  }
}

}  // namespace

void attention_prefill(cudaStream_t stream, const AttentionShape& shape, const f16* q, const std::int32_t* rows,
                       std::int64_t first, std::int64_t m, const f16* k, const f16* v, std::int64_t n, bf16* out) {
  const Operands operands{.q = q,
                          .rows = rows,
                          .first = int(first),
                          .m = int(m),
                          .k = k,
                          .v = v,
                          .n = int(n),
                          .out = out,
                          .heads = shape.heads,
                          .heads_kv = shape.heads_kv,
                          .d = shape.d,
                          .scale = shape.scale * std::numbers::log2e_v<float>};
  const dim3 grid(unsigned(shape.heads), unsigned(ceil_div(m, kQueries)));
  with_head_dim(shape.d, [&](auto dim) {
    using Dim = decltype(dim);
    launch(stream, grid, dim3(kThreads), shared_bytes<Dim::kSize>(), attention_prefill_kernel<Dim>, operands);
  });
}

}  // namespace fastkv::cuda
