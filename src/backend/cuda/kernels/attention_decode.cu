// Attention of one token over a layer's cache, which gets the token's own row on the way: rows are split over blocks,
// whose results are then combined.
#include <cmath>
#include <numbers>

#include "backend/cuda/kernels/cached_row.cuh"
#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/tensor_core.cuh"
#include "core/check.hpp"
#include "core/index_rules.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kCombineThreads = 1024, kCombineWarps = kCombineThreads / kWarp;

// Splits have fixed borders, whatever the capacity is: a result depends on the rows alone. The first rows are in short
// ones, so that few rows fill a GPU too; later ones are longer, so that partial results stay below 2 % of the cache.
constexpr int kShortSplit = 128, kShortSplits = 64, kLongSplit = 512;
constexpr std::int64_t kShortRows = kShortSplit * kShortSplits;
__host__ __device__ constexpr std::int64_t split_begin(std::int64_t split) {
  return split < kShortSplits ? split * kShortSplit : kShortRows + (split - kShortSplits) * kLongSplit;
}
__host__ __device__ constexpr int splits_of(std::int64_t rows) {
  return int(rows <= kShortRows ? ceil_div(rows, kShortSplit) : kShortSplits + ceil_div(rows - kShortRows, kLongSplit));
}

struct Operands {
  TokenRows token;
  CacheView cache;
  const std::int32_t* appended;
  int heads, heads_kv, d;
  float scale;    ///< of exponents of 2
  float2* sums;   ///< [splits][H]: a split's largest exponent and Σ 2^(exponent − largest)
  float* values;  ///< [splits][H][d]: Σ 2^(exponent − largest) v
  bf16* out;      ///< [H][d]

  __device__ std::int64_t rows(int stored) const { return std::int64_t(cache.kept[stored]) + *appended; }
  /// Query heads that read a stored head.
  __device__ int sharing() const { return heads / cache.stored_heads; }
};

// A block takes one split of one stored head for kHeads of the query heads that share it. kLanes lanes take a row, 8
// values each; a batch of rows is loaded while the one before is used. With 128 registers 2 blocks are on a
// multiprocessor, of bfloat16 rows with 2 x 16 KB under way each: 132 x 64 KB exceed what a memory of 3.35 TB/s
// delivers in its latency (0.7 us: 2.3 MB). Float32 throughout: for 4 heads that is a fifth of what the multiprocessors
// can do in the time that the memory needs.
template <int kHeads, int kLanes>
class Split {
 public:
  __device__ Split(const Operands& p, float* shared)
      : p_(p),
        scores_(shared),
        warp_values_(shared + kHeads * kLongSplit),
        lane_(int(threadIdx.x) % kLanes),
        slot_(int(threadIdx.x) / kLanes),
        stored_(int(blockIdx.y)),
        first_head_(int(blockIdx.z) * kHeads),
        split_(gridDim.x - 1 - blockIdx.x) {}
  static constexpr std::size_t shared_bytes(int d) {
    return sizeof(float) * std::size_t(kHeads * (kLongSplit + kWarps * d));
  }

  __device__ void run() {
    const std::int64_t begin = split_begin(split_), rows = p_.rows(stored_);
    if (begin >= rows) return;
    count_ = int(min(split_begin(split_ + 1), rows) - begin);
    first_row_ = p_.cache.offsets[stored_] + begin;
    if (begin + count_ == rows) append();
    with_row_chunk(p_.cache.k_type, [&](auto chunk) { multiply_keys<decltype(chunk)>(); });
    with_row_chunk(p_.cache.v_type, [&](auto chunk) {
      Batch<decltype(chunk)> first;  // of values, under way during what lies between
      load(first, p_.cache.v, p_.cache.v_stride, 0);
      __syncthreads();
      exponentiate();
      __syncthreads();
      sum_values(first);
    });
  }

 private:
  static constexpr int kSlots = kThreads / kLanes;
  static constexpr int kAtOnce = kHeads == 1 ? 8 : 16 / kHeads;

  /// Rows slot, slot + kSlots, … from some row of the split, a chunk of each.
  template <class Chunk>
  struct Batch {
    static constexpr int kRows = sizeof(Chunk) > 16 ? kAtOnce / 2 : kAtOnce, kStep = kRows * kSlots;
    Chunk chunk[kRows];
  };

  /// The split's last row becomes the token's: a warp writes the key, another the value. Blocks for other query heads
  /// write the same bytes, and each reads its own.
  __device__ __forceinline__ void append() {
    const int warp = int(threadIdx.x) / kWarp, chunk = int(threadIdx.x) % kWarp;
    if (warp < 2) {
      const bool values = warp == 1, valid = chunk * 8 < p_.d;
      float x[8] = {};
      if (valid) {
        const float* row = values ? p_.token.v : p_.token.k;
        RowChunk<CacheType::f32> from;
        from.load(
            reinterpret_cast<const std::byte*>(row + shared_head(stored_, p_.cache.stored_heads, p_.heads_kv) * p_.d),
            chunk, p_.d);
        from.values(x);
      }
      store_chunk(values ? p_.cache.v_type : p_.cache.k_type, x, row_at(p_.cache, values, first_row_ + count_ - 1),
                  chunk, p_.d, valid);
    }
    __syncthreads();
  }
  /// Query head number g of the block's; −1: there is none.
  __device__ int head(int g) const {
    const int sharing = p_.sharing(), number = first_head_ + g;
    return number < sharing ? stored_ * sharing + number : -1;
  }
  /// Loads a batch from row `row0` of the split; zeros past its end.
  template <class Chunk>
  __device__ __forceinline__ void load(Batch<Chunk>& batch, const std::byte* rows, std::int64_t stride,
                                       int row0) const {
#pragma unroll
    for (int i = 0; i < Batch<Chunk>::kRows; ++i) {
      const int row = row0 + slot_ + i * kSlots;
      batch.chunk[i] = {};
      if (row < count_ && lane_ * 8 < p_.d) batch.chunk[i].load(rows + (first_row_ + row) * stride, lane_, p_.d);
    }
  }

  /// scores[g][row] = scale · q_g · k_row.
  template <class Chunk>
  __device__ __forceinline__ void multiply_keys() {
    float q[kHeads][8] = {};
#pragma unroll
    for (int g = 0; g < kHeads; ++g) {
      if (head(g) < 0 || lane_ * 8 >= p_.d) continue;
      RowChunk<CacheType::f32> query;
      query.load(reinterpret_cast<const std::byte*>(p_.token.q + head(g) * p_.d), lane_, p_.d);
      query.values(q[g]);
#pragma unroll
      for (float& x : q[g]) x *= p_.scale;
    }
    using Rows = Batch<Chunk>;
    Rows batch, next;
    load(batch, p_.cache.k, p_.cache.k_stride, 0);
    for (int row0 = 0; row0 < count_; row0 += Rows::kStep, batch = next) {
      load(next, p_.cache.k, p_.cache.k_stride, row0 + Rows::kStep);
      constexpr int kSums = Rows::kRows * kHeads, kHeld = kSums > kLanes ? kSums / kLanes : 1;
      float sum[kSums];
#pragma unroll
      for (int i = 0; i < Rows::kRows; ++i) {
        float x[8];
        batch.chunk[i].values(x);
#pragma unroll
        for (int g = 0; g < kHeads; ++g) {
          float dot = q[g][0] * x[0];
#pragma unroll
          for (int c = 1; c < 8; ++c) dot = fmaf(q[g][c], x[c], dot);
          sum[i * kHeads + g] = dot;
        }
      }
      sum_each<kSums, kLanes>(sum, lane_);
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int held = first_sum<kSums, kLanes>(lane_) + i, row = row0 + slot_ + held / kHeads * kSlots;
        if (row < count_) scores_[held % kHeads * kLongSplit + row] = sum[i];
      }
    }
  }

  /// scores[g][row] becomes 2^(score − largest).
  __device__ __forceinline__ void exponentiate() {
    static_assert(kHeads <= kWarps);
    const int g = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
    if (g >= kHeads) return;
    float* const scores = scores_ + g * kLongSplit;
    float top = -INFINITY, sum = 0;
    for (int row = lane; row < count_; row += kWarp) top = fmaxf(top, scores[row]);
    top = warp_max(top);
    for (int row = lane; row < count_; row += kWarp) sum += scores[row] = exp2_approx(scores[row] - top);
    sum = warp_sum(sum);
    if (lane == 0 && head(g) >= 0) p_.sums[split_ * p_.heads + head(g)] = make_float2(top, sum);
  }

  /// values[split][head] = Σ scores[g][row] · v_row: over a thread's rows, the lanes of a warp, the warps.
  template <class Chunk>
  __device__ __forceinline__ void sum_values(Batch<Chunk>& batch) {
    using Rows = Batch<Chunk>;
    float acc[kHeads][8] = {};
    Rows next;
    for (int row0 = 0; row0 < count_; row0 += Rows::kStep, batch = next) {
      load(next, p_.cache.v, p_.cache.v_stride, row0 + Rows::kStep);
#pragma unroll
      for (int i = 0; i < Rows::kRows; ++i) {
        const int row = row0 + slot_ + i * kSlots;
        float x[8];
        batch.chunk[i].values(x);
#pragma unroll
        for (int g = 0; g < kHeads; ++g) {
          const float weight = row < count_ ? scores_[g * kLongSplit + row] : 0;
#pragma unroll
          for (int c = 0; c < 8; ++c) acc[g][c] = fmaf(weight, x[c], acc[g][c]);
        }
      }
    }
    const int warp = int(threadIdx.x) / kWarp;
#pragma unroll
    for (int g = 0; g < kHeads; ++g) {
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const float sum = warp_sum<kWarp / kLanes, kLanes>(acc[g][c]);
        if (int(threadIdx.x) % kWarp < kLanes && lane_ * 8 < p_.d)
          warp_values_[(warp * kHeads + g) * p_.d + lane_ * 8 + c] = sum;
      }
    }
    __syncthreads();
    for (int i = int(threadIdx.x); i < kHeads * p_.d; i += kThreads) {
      const int g = i / p_.d;
      if (head(g) < 0) continue;
      float sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += warp_values_[w * kHeads * p_.d + i];
      p_.values[(split_ * p_.heads + head(g)) * p_.d + i % p_.d] = sum;
    }
  }

  const Operands& p_;
  float *scores_, *warp_values_;  ///< shared: [kHeads][kLongSplit], [kWarps][kHeads][d]
  int lane_, slot_;               ///< of the row, of the block's rows
  int stored_, first_head_;
  std::int64_t split_, first_row_ = 0;
  int count_ = 0;  ///< rows
};

template <int kHeads, int kLanes>
__global__ void __launch_bounds__(kThreads, 2) attention_decode_kernel(Operands p) {
  await_predecessor();
  Split<kHeads, kLanes>(p, shared_memory<float>()).run();
}

// A block takes a head, a warp every kCombineWarps-th split, a lane 4 values.
__global__ void __launch_bounds__(kCombineThreads) combine_splits_kernel(Operands p) {
  __shared__ float warp_values[kCombineWarps][kMaxHeadDim];
  __shared__ float warp_sums[kCombineWarps];
  await_predecessor();
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, head = int(blockIdx.x);
  const int splits = splits_of(p.rows(shared_head(head, p.heads, p.cache.stored_heads)));
  float top = -INFINITY;
  for (int i = int(threadIdx.x); i < splits; i += kCombineThreads) top = fmaxf(top, p.sums[i * p.heads + head].x);
  top = block_max<kCombineThreads>(top);
  float sum = 0, acc[4] = {};
#pragma unroll 4
  for (int i = warp; i < splits; i += kCombineWarps) {
    const std::int64_t at = std::int64_t(i) * p.heads + head;
    const float2 of_split = p.sums[at];
    float4 x = {};
    if (lane * 4 < p.d) x = *reinterpret_cast<const float4*>(p.values + at * p.d + lane * 4);
    const float factor = exp2_approx(of_split.x - top);
    sum = fmaf(of_split.y, factor, sum);
    acc[0] = fmaf(x.x, factor, acc[0]), acc[1] = fmaf(x.y, factor, acc[1]);
    acc[2] = fmaf(x.z, factor, acc[2]), acc[3] = fmaf(x.w, factor, acc[3]);
  }
  for (int c = 0; c < 4; ++c) warp_values[warp][lane * 4 + c] = acc[c];
  if (lane == 0) warp_sums[warp] = sum;
  __syncthreads();
  if (int(threadIdx.x) >= p.d) return;
  float value = 0, total = 0;
  for (int w = 0; w < kCombineWarps; ++w) value += warp_values[w][threadIdx.x], total += warp_sums[w];
  p.out[head * p.d + int(threadIdx.x)] = __float2bfloat16_rn(value / total);
}

std::size_t values_offset(const AttentionShape& shape, int splits) {
  return std::size_t(round_up(std::int64_t(splits) * shape.heads * std::int64_t(sizeof(float2)), 16));
}

template <int kHeads, int kLanes>
void launch_splits(cudaStream_t stream, const Operands& operands, int splits) {
  const int stored = operands.cache.stored_heads;
  const dim3 grid(unsigned(splits), unsigned(stored), unsigned(ceil_div(operands.heads / stored, kHeads)));
  launch_early(stream, grid, dim3(kThreads), Split<kHeads, kLanes>::shared_bytes(operands.d),
               attention_decode_kernel<kHeads, kLanes>, operands);
}
template <int kHeads>
void launch_splits(cudaStream_t stream, const Operands& operands, int splits) {
  operands.d <= 64 ? launch_splits<kHeads, 8>(stream, operands, splits)
                   : launch_splits<kHeads, 16>(stream, operands, splits);
}

}  // namespace

std::size_t attention_decode_bytes(const AttentionShape& shape, std::int64_t capacity) {
  const int splits = splits_of(capacity);
  return values_offset(shape, splits) + std::size_t(splits) * std::size_t(shape.heads * shape.d) * sizeof(float);
}

void attention_decode(cudaStream_t stream, const AttentionShape& shape, const TokenRows& token, const CacheView& cache,
                      const std::int32_t* appended, void* partial, bf16* out) {
  check(shape.d >= 8 && shape.d <= kMaxHeadDim && shape.d % 8 == 0, ErrorCode::internal, "head size ", shape.d);
  const int splits = splits_of(cache.capacity), sharing = shape.heads / cache.stored_heads;
  auto* const sums = static_cast<float2*>(partial);
  auto* const values = reinterpret_cast<float*>(static_cast<std::byte*>(partial) + values_offset(shape, splits));
  const Operands operands{
      token, cache,  appended, shape.heads, shape.heads_kv, shape.d, shape.scale * std::numbers::log2e_v<float>,
      sums,  values, out};
  if (sharing == 1)
    launch_splits<1>(stream, operands, splits);
  else if (sharing <= 4)
    launch_splits<4>(stream, operands, splits);
  else
    launch_splits<8>(stream, operands, splits);
  launch_early(stream, dim3(unsigned(shape.heads)), dim3(kCombineThreads), 0, combine_splits_kernel, operands);
}

}  // namespace fastkv::cuda
