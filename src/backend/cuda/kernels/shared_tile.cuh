// Tiles of bfloat16 rows in shared memory, laid out so that neither copies nor matrix loads meet bank conflicts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

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

  /// Starts copies of kRows rows of d values, row i from `row_at(i)`; zeros if that is null and from value d on. All
  /// kThreads threads of the block call it.
  template <int kRows, int kThreads, class RowAt>
  static __device__ __forceinline__ void copy(std::byte* tile, int d, const RowAt& row_at) {
#pragma unroll
    for (int i = int(threadIdx.x); i < kRows * kChunks; i += kThreads) {
      const int row = i / kChunks, chunk = i % kChunks;
      const bf16* const from = row_at(row);
      const bool valid = from && chunk * 8 < d;
      copy_async_16(tile + offset(row, chunk), valid ? from + chunk * 8 : nullptr, valid);
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

/// Calls run(std::integral_constant<int, kD>) with the smallest kD that kernels are built for and that holds d values.
template <class Run>
void with_head_dim(int d, const Run& run) {
  check(d >= 8 && d <= kMaxHeadDim && d % 8 == 0, ErrorCode::internal, "head size ", d);
  if (d <= 16) return run(std::integral_constant<int, 16>());
  if (d <= 64) return run(std::integral_constant<int, 64>());
  if (d <= 80) return run(std::integral_constant<int, 80>());
  if (d <= 96) return run(std::integral_constant<int, 96>());
  return run(std::integral_constant<int, 128>());
}

}  // namespace fastkv::cuda
