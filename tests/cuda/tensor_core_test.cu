// Fragment layouts of tensor-core instructions against the PTX manual's, and asynchronous copies.
#include "backend/cuda/kernels/tensor_core.cuh"

#include <cuda_fp16.h>

#include <vector>

#include "backend/cuda/device.hpp"
#include "backend/cuda/kernels/launch.cuh"
#include "cuda_test.hpp"

namespace fastkv::test {
namespace {

using cuda::launch;
using cuda::to_device;
using cuda::to_host;

/// out [32][4]: of four 8x8 matrices, one after another in shared memory, what each lane holds.
template <bool Transposed>
__global__ void load_kernel(const std::uint16_t* matrices, std::uint32_t* out) {
  auto* shared = cuda::shared_memory<std::uint16_t>();
  const int lane = int(threadIdx.x);
  for (int i = lane; i < 4 * 64; i += 32) shared[i] = matrices[i];
  __syncwarp();
  std::uint32_t pairs[4];
  if constexpr (Transposed)
    cuda::load_matrix_x4_trans(pairs, shared + lane * 8);
  else
    cuda::load_matrix_x4(pairs, shared + lane * 8);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = pairs[i];
}

TEST(TensorCore, LoadsGiveEachLaneItsPairs) {
  cuda::Stream stream;
  std::vector<std::uint16_t> matrices;
  for (int i = 0; i < 4; ++i)
    for (int y = 0; y < 8; ++y)
      for (int x = 0; x < 8; ++x) matrices.push_back(std::uint16_t(100 * i + 10 * y + x));
  const auto from = to_device<std::uint16_t>(stream, matrices, "matrices");
  for_each_schedule([&] {
    const cuda::DeviceArray<std::uint32_t> out(stream, 128, "out");
    launch(stream, 1, 32, 512, load_kernel<false>, from.data(), out.data());
    const auto plain = to_host(stream, out.data(), out.size());
    launch(stream, 1, 32, 512, load_kernel<true>, from.data(), out.data());
    const auto transposed = to_host(stream, out.data(), out.size());
    // By hand: lane 6 holds columns 4 and 5 of row 1, or rows 4 and 5 of column 1.
    EXPECT_EQ(plain[6 * 4 + 2], 214u | 215u << 16);
    EXPECT_EQ(transposed[6 * 4 + 2], 241u | 251u << 16);
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned a = lane / 4, b = lane % 4 * 2;
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = 100 * i + 10 * a + b, column = 100 * i + 10 * b + a;
        EXPECT_EQ(plain[lane * 4 + i], row | (row + 1) << 16);
        EXPECT_EQ(transposed[lane * 4 + i], column | (column + 10) << 16);
      }
    }
  });
}

__global__ void product_kernel(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const int lane = int(threadIdx.x);
  std::uint32_t left[4], right[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) left[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) right[i] = b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) sum[i] = d[lane * 4 + i];
  cuda::mma_16x8x16(sum, left, right);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sum[i];
}

std::uint32_t pair(float low, float high) {
  return __half_as_ushort(__float2half_rn(low)) | std::uint32_t(__half_as_ushort(__float2half_rn(high))) << 16;
}

TEST(TensorCore, ProductsHaveTheManualsFragments) {
  cuda::Stream stream;
  // Integers whose products and sums are exact in any order, different at every place.
  float a[16][16], b[16][8], c[16][8];
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 16; ++x) a[y][x] = float((y * 7 + x * 3) % 31 - 15);
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 8; ++x) {
      b[y][x] = float((y * 5 + x * 11) % 29 - 14);
      c[y][x] = float(1000 * y + x);
    }
  std::vector<std::uint32_t> left, right;
  std::vector<float> sum;
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, t = lane % 4 * 2;
    left.push_back(pair(a[group][t], a[group][t + 1]));
    left.push_back(pair(a[group + 8][t], a[group + 8][t + 1]));
    left.push_back(pair(a[group][t + 8], a[group][t + 9]));
    left.push_back(pair(a[group + 8][t + 8], a[group + 8][t + 9]));
    right.push_back(pair(b[t][group], b[t + 1][group]));
    right.push_back(pair(b[t + 8][group], b[t + 9][group]));
    for (const int row : {group, group + 8})
      for (const int column : {t, t + 1}) sum.push_back(c[row][column]);
  }
  const auto da = to_device<std::uint32_t>(stream, left, "a"), db = to_device<std::uint32_t>(stream, right, "b");
  for_each_schedule([&] {
    const auto d = to_device<float>(stream, sum, "d");
    launch(stream, 1, 32, 0, product_kernel, da.data(), db.data(), d.data());
    const std::vector<float> found = to_host(stream, d.data(), 128);
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int y = lane / 4 + i / 2 * 8, x = lane % 4 * 2 + i % 2;
        float expected = c[y][x];
        for (int k = 0; k < 16; ++k) expected += a[y][k] * b[k][x];
        EXPECT_EQ(found[std::size_t(lane * 4 + i)], expected) << "lane " << lane << ", value " << i;
      }
  });
}

/// Each thread copies one 16-byte part per stage and reads the part of its neighbour after a barrier.
__global__ void copy_kernel(const int4* from, int valid, int4* out) {
  auto* shared = cuda::shared_memory<int4>();
  const int me = int(threadIdx.x), n = int(blockDim.x);
  for (int stage = 0; stage < 3; ++stage) {
    cuda::copy_async_16(shared + stage * n + me, from + stage * n + me, stage * n + me < valid);
    cuda::copy_commit();
  }
  const int neighbour = (me + 1) % n;
  cuda::copy_wait<2>();
  __syncthreads();
  out[me] = shared[neighbour];
  cuda::copy_wait<1>();
  __syncthreads();
  out[n + me] = shared[n + neighbour];
  cuda::copy_wait<0>();
  __syncthreads();
  out[2 * n + me] = shared[2 * n + neighbour];
}

TEST(TensorCore, CopiesLandByTheirWaitWithZerosWhereNotValid) {
  cuda::Stream stream;
  constexpr int kThreads = 64, kValid = 150;
  std::vector<int4> values(3 * kThreads);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = {int(i) + 1, -int(i), int(i), 7};
  const auto from = to_device<int4>(stream, values, "from");
  for_each_schedule([&] {
    const cuda::DeviceArray<int4> out(stream, values.size(), "out");
    launch(stream, 1, kThreads, values.size() * sizeof(int4), copy_kernel, from.data(), kValid, out.data());
    const std::vector<int4> found = to_host(stream, out.data(), out.size());
    for (int i = 0; i < 3 * kThreads; ++i) {
      const int at = i / kThreads * kThreads + (i % kThreads + 1) % kThreads;
      EXPECT_EQ(found[std::size_t(i)].x, at < kValid ? at + 1 : 0);
      EXPECT_EQ(found[std::size_t(i)].y, at < kValid ? -at : 0);
    }
  });
}

}  // namespace
}  // namespace fastkv::test
