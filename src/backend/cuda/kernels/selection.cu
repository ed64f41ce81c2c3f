// Pooling, head sums, radix selection of each head's best rows, and the share of attention that kept rows hold.
#include "backend/cuda/kernels/selection.hpp"

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "backend/cuda/kernels/launch.cuh"
#include "core/index_rules.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kColumns = 256;  // scores of a block, one a thread
constexpr int kTopThreads = 512;
constexpr int kItems = 4;  // neighbouring rows of a thread
constexpr int kDigits = 256;

/// The column of this thread and whether there is one.
__device__ std::int64_t column() { return std::int64_t(blockIdx.x) * kColumns + threadIdx.x; }

dim3 columns_of(std::int64_t n, int rows) { return dim3(unsigned(ceil_div(n, kColumns)), unsigned(rows)); }

/// P[h, j]; sums start at the score itself, then go forwards, then backwards, as on the CPU.
__global__ void pool_kernel(const float* __restrict__ scores, std::int64_t n, bool max, std::int64_t before,
                            std::int64_t after, float* __restrict__ pooled) {
  const std::int64_t j = column();
  if (j >= n) return;
  const float* s = scores + blockIdx.y * n;
  const RowRange range = pooled_range(n, before, after, j);
  float p = s[j];
  for (std::int64_t i = j + 1; i < range.end; ++i) p = max ? fmaxf(p, s[i]) : p + s[i];
  for (std::int64_t i = j - 1; i >= range.begin; --i) p = max ? fmaxf(p, s[i]) : p + s[i];
  // zeros padded and counted: the divisor is always the width
  pooled[blockIdx.y * n + j] = max ? p : p / float(before + after + 1);
}

__global__ void reduce_heads_kernel(const float* __restrict__ scores, std::int64_t n, int size, bool max,
                                    float* __restrict__ reduced) {
  const std::int64_t j = column();
  if (j >= n) return;
  const float* s = scores + std::int64_t(blockIdx.y) * size * n + j;
  float r = s[0];
  for (int h = 1; h < size; ++h) r = max ? fmaxf(r, s[h * n]) : r + s[h * n];
  reduced[blockIdx.y * n + j] = r;
}

/// One block a head. The rank of the last row that has a place is found digit by digit from counts; then rows are
/// written in order: all of a better rank, and of that rank the lowest.
__global__ void __launch_bounds__(kTopThreads)
    top_k_kernel(const float* __restrict__ scores, std::int64_t scored, std::int64_t n,
                 const std::int32_t* __restrict__ kept, const std::int64_t* __restrict__ offsets, std::int64_t first,
                 std::int64_t last, std::int32_t* __restrict__ selected) {
  using Scan = cub::BlockScan<int, kTopThreads>;
  __shared__ typename Scan::TempStorage scan;
  __shared__ int counts[kDigits];
  __shared__ std::uint32_t shared_rank;
  __shared__ int shared_wanted;
  const int head = int(blockIdx.x), thread = int(threadIdx.x);
  const float* s = scores + head * scored;
  std::int32_t* out = selected + offsets[head];
  const RowRange free = competing_rows(n, first, last);
  const int wanted = int(kept[head] - first - last);

  for (std::int64_t i = thread; i < first + last; i += kTopThreads)
    out[i < first ? i : wanted + i] = std::int32_t(end_row(n, first, last, i));
  if (wanted <= 0) return;

  // rank: bits fixed so far, those above `shift`; places: how many rows of that prefix still have one
  std::uint32_t rank = 0;
  int places = wanted;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int digit = thread; digit < kDigits; digit += kTopThreads) counts[digit] = 0;
    __syncthreads();
    const std::uint32_t fixed = shift == 24 ? 0u : ~0u << (shift + 8);
    for (std::int64_t j = free.begin + thread; j < free.end; j += kTopThreads) {
      const std::uint32_t r = falling_rank(__float_as_uint(s[j]));
      if ((r & fixed) == rank) atomicAdd(&counts[r >> shift & (kDigits - 1)], 1);
    }
    __syncthreads();
    if (thread == 0) {
      int digit = 0, left = places;
      while (digit < kDigits - 1 && counts[digit] < left) left -= counts[digit++];
      shared_rank = rank | std::uint32_t(digit) << shift;
      shared_wanted = left;
    }
    __syncthreads();
    rank = shared_rank;
    places = shared_wanted;
  }

  int written = 0, equal_before = 0;
  for (std::int64_t tile = free.begin; tile < free.end; tile += kTopThreads * kItems) {
    int equal[kItems], equal_rank[kItems], take[kItems], place[kItems], equals, taken;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const std::int64_t j = tile + thread * kItems + i;
      const std::uint32_t r = j < free.end ? falling_rank(__float_as_uint(s[j])) : 0u;
      equal[i] = j < free.end && r == rank;
      take[i] = j < free.end && r < rank;
    }
    Scan(scan).ExclusiveSum(equal, equal_rank, equals);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kItems; ++i) take[i] |= equal[i] && equal_before + equal_rank[i] < places;
    Scan(scan).ExclusiveSum(take, place, taken);
#pragma unroll
    for (int i = 0; i < kItems; ++i)
      if (take[i]) out[first + written + place[i]] = std::int32_t(tile + thread * kItems + i);
    written += taken;
    equal_before += equals;
    __syncthreads();
  }
}

__global__ void select_ends_kernel(std::int64_t n, std::int64_t first, std::int64_t last,
                                   std::int32_t* __restrict__ selected) {
  const std::int64_t i = column();
  if (i < first + last) selected[blockIdx.y * (first + last) + i] = std::int32_t(end_row(n, first, last, i));
}

/// One block a query head; sums in double, in an order that depends on the counts alone.
__global__ void coverage_kernel(const float* __restrict__ raw, int heads, std::int64_t scored,
                                const std::int32_t* __restrict__ selected, const std::int64_t* __restrict__ offsets,
                                const std::int32_t* __restrict__ kept, int selection_heads, std::int64_t rows,
                                double* __restrict__ shares) {
  using Reduce = cub::BlockReduce<double, kColumns>;
  __shared__ typename Reduce::TempStorage storage;
  const int head = int(blockIdx.x), from = shared_head(head, heads, selection_heads);
  const float* s = raw + head * scored;
  double all = 0, held = 0;
  for (std::int64_t j = threadIdx.x; j < scored; j += kColumns) all += double(s[j]);
  for (std::int64_t i = threadIdx.x; i < kept[from]; i += kColumns) {
    const std::int32_t j = selected[offsets[from] + i];
    if (j < scored) held += double(s[j]);
  }
  const double sum = Reduce(storage).Sum(held - all);  // of thread 0 only
  if (threadIdx.x == 0) shares[head] = (sum + double(rows)) / double(rows);
}

}  // namespace

void pool(cudaStream_t stream, const float* scores, int heads, std::int64_t n, Pooling pooling, const PoolWidth& width,
          float* pooled) {
  if (n == 0) return;
  launch(stream, columns_of(n, heads), dim3(kColumns), 0, pool_kernel, scores, n, pooling == Pooling::max, width.before,
         width.after, pooled);
}

void reduce_heads(cudaStream_t stream, const float* scores, int heads, std::int64_t n, int groups, GroupReduce reduce,
                  float* reduced) {
  if (n == 0) return;
  launch(stream, columns_of(n, groups), dim3(kColumns), 0, reduce_heads_kernel, scores, n, heads / groups,
         reduce == GroupReduce::max, reduced);
}

void top_k(cudaStream_t stream, const float* scores, int heads, std::int64_t scored, std::int64_t n,
           const std::int32_t* kept, const std::int64_t* offsets, std::int64_t first, std::int64_t last,
           std::int32_t* selected) {
  launch(stream, dim3(unsigned(heads)), dim3(kTopThreads), 0, top_k_kernel, scores, scored, n, kept, offsets, first,
         last, selected);
}

void select_ends(cudaStream_t stream, std::int64_t n, std::int64_t first, std::int64_t last, int heads,
                 std::int32_t* selected) {
  if (first + last == 0) return;
  launch(stream, columns_of(first + last, heads), dim3(kColumns), 0, select_ends_kernel, n, first, last, selected);
}

void coverage(cudaStream_t stream, const float* raw, int heads, std::int64_t scored, const std::int32_t* selected,
              const std::int64_t* offsets, const std::int32_t* kept, int selection_heads, std::int64_t rows,
              double* shares) {
  launch(stream, dim3(unsigned(heads)), dim3(kColumns), 0, coverage_kernel, raw, heads, scored, selected, offsets, kept,
         selection_heads, rows, shares);
}

}  // namespace fastkv::cuda
