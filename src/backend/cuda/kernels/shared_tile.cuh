// Tiles of float16 rows in shared memory, laid out so that neither copies nor matrix loads meet bank conflicts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/kernels/attention.hpp"
#include "backend/cuda/kernels/tensor_core.cuh"
#include "core/check.hpp"

namespace fastkv::cuda {

/// Rows of kD values (a multiple of 16) as chunks of 16 bytes. A matrix load takes one chunk of 8 rows: those lie in 8
/// different sixteenths of the 128 bytes that the banks give at once, because the chunk's number is mixed with the
/// row's, or, where rows are no multiple of 128 bytes, because a row is an odd number of chunks long.
template <int kD>
struct SharedTile {
  static constexpr int kChunks = kD / 8;
  static constexpr bool kMixed = kChunks % 8 == 0;
  static constexpr int kRowBytes = (kMixed ? kChunks : kChunks | 1) * 16;
  static constexpr int bytes(int rows) { return rows * kRowBytes; }

  static __device__ __forceinline__ int offset(int row, int chunk) {
    return row * kRowBytes + (kMixed ? chunk ^ (row & 7) : chunk) * 16;
  }

  /// Starts copies of kRows rows of d values, row i from `row_at(i)`; zeros from row `rows` and value d on. All
  /// kThreads threads of the block call it. The count of steps is known, and a thread keeps its chunk where rows divide
  /// the threads: addresses are then sums of constants.
  template <int kRows, int kThreads, class RowAt>
  static __device__ __forceinline__ void copy(std::byte* tile, int rows, int d, const RowAt& row_at) {
    constexpr int kCopies = kRows * kChunks, kSteps = (kCopies + kThreads - 1) / kThreads;
    const int thread = int(threadIdx.x);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      constexpr bool kWholeRows = kThreads % (8 * kChunks) == 0;
      const int at = i * kThreads + thread;
      const int row = kWholeRows ? i * (kThreads / kChunks) + thread / kChunks : at / kChunks;
      const int chunk = kWholeRows ? thread % kChunks : at % kChunks;
      const int to =
          kWholeRows ? i * (kThreads / kChunks) * kRowBytes + offset(thread / kChunks, chunk) : offset(row, chunk);
      if (kCopies % kThreads == 0 || at < kCopies)
        copy_async_16(tile + to, row_at(row) + chunk * 8, row < rows && chunk * 8 < d);
    }
  }

  // Fragments for mma_16x8x16(), of the tile's rows from `row` (a multiple of 8) and values from 16 · `step`.

  /// Rows row .. row + 16 as the left matrix [16 rows, 16 values].
  static __device__ __forceinline__ void load_left(std::uint32_t (&a)[4], const std::byte* tile, int row, int step) {
    const int lane = int(threadIdx.x % 32);
    load_matrix_x4(a, tile + row * kRowBytes + at_step(offset(lane % 16, lane / 16), step));
  }
  /// Rows row .. row + 16 as two right matrices [16 values, 8 rows].
  static __device__ __forceinline__ void load_right(std::uint32_t (&b)[2][2], const std::byte* tile, int row,
                                                    int step) {
    const int lane = int(threadIdx.x % 32);
    std::uint32_t r[4];
    load_matrix_x4(r, tile + row * kRowBytes + at_step(offset(lane / 16 * 8 + lane % 8, lane / 8 % 2), step));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
  /// Rows row .. row + 16, values 16 · step .. + 16, as two right matrices [16 rows, 8 values].
  static __device__ __forceinline__ void load_right_rows(std::uint32_t (&b)[2][2], const std::byte* tile, int row,
                                                         int step) {
    const int lane = int(threadIdx.x % 32);
    std::uint32_t r[4];
    load_matrix_x4_trans(r, tile + row * kRowBytes + at_step(offset(lane % 16, lane / 16), step));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }

 private:
  /// The offset of the chunk 2 · step further on, from that of chunk 0 or 1: one instruction and no register of its
  /// own.
  static __device__ __forceinline__ int at_step(int offset, int step) {
    return kMixed ? offset ^ step * 32 : offset + step * 32;
  }
};

/// What kernels are built for: rows of kSize values, of which d are there: all (so that addresses are constants), or as
/// many as is known at run time.
template <int kSize_, bool kWhole>
struct HeadDim {
  static constexpr int kSize = kSize_;
  static __device__ __forceinline__ int values(int d) { return kWhole ? kSize : d; }
};

/// Calls run(HeadDim) with the best one for d.
template <class Run>
void with_head_dim(int d, const Run& run) {
  check(d >= 8 && d <= kMaxHeadDim && d % 8 == 0, ErrorCode::internal, "head size ", d);
  if (d == 64) return run(HeadDim<64, true>());
  if (d == 80) return run(HeadDim<80, true>());
  if (d == 96) return run(HeadDim<96, true>());
  if (d == 128) return run(HeadDim<128, true>());
  if (d <= 16) return run(HeadDim<16, false>());
  if (d <= 64) return run(HeadDim<64, false>());
  run(HeadDim<128, false>());
}

}  // namespace fastkv::cuda
