// The emulated device itself: threads, barriers, warp collectives, atomics, memory, graphs.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "backend/cuda/device.hpp"
#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/tensor_core.cuh"
#include "core/half.hpp"
#include "cub/cub.cuh"
#include "cuda_test.hpp"
#include "fastkv/error.hpp"

namespace fastkv::test {
namespace {

using cuda::launch;
using cuda::shared_memory;

std::string fault_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const emulation::Fault& fault) {
    return fault.what();
  }
  return "";
}

void number_kernel(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned at = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[at] = int(at);
}

TEST(Emulation, EveryThreadRunsOnce) {
  cuda::Stream stream;
  for_each_schedule([&] {
    cuda::DeviceArray<int> out(stream, 3 * 2 * 5 * 8 * 4 * 3, "out");
    launch(stream, dim3(3, 2, 5), dim3(8, 4, 3), 0, number_kernel, out.data());
    const std::vector<int> found = cuda::to_host(stream, out.data(), out.size());
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], int(i));
  });
}

/// Each thread adds what its neighbour wrote, `rounds` times; without the barriers the order of threads shows.
template <bool Barriers>
void neighbours_kernel(unsigned* out, int rounds) {
  unsigned* values = shared_memory<unsigned>();
  const int me = int(threadIdx.x), n = int(blockDim.x);
  values[me] = unsigned(me);
  for (int r = 0; r < rounds; ++r) {
    if (Barriers) __syncthreads();
    const unsigned sum = values[me] + values[(me + 1) % n];
    if (Barriers) __syncthreads();
    values[me] = sum;
  }
  out[me] = values[me];
}

TEST(Emulation, BarriersGiveOneResultAndTheirAbsenceShows) {
  cuda::Stream stream;
  std::vector<std::vector<unsigned>> right, wrong;
  for_each_schedule([&] {
    cuda::DeviceArray<unsigned> out(stream, 70, "out");
    launch(stream, 1, 70, 70 * sizeof(unsigned), neighbours_kernel<true>, out.data(), 3);
    right.push_back(cuda::to_host(stream, out.data(), out.size()));
    launch(stream, 1, 70, 70 * sizeof(unsigned), neighbours_kernel<false>, out.data(), 3);
    wrong.push_back(cuda::to_host(stream, out.data(), out.size()));
  });
  for (std::size_t i = 1; i < right.size(); ++i) EXPECT_EQ(right[i], right[0]);
  EXPECT_NE(wrong[1], wrong[0]);
  EXPECT_EQ(right[0][5], 5u + 3 * 6 + 3 * 7 + 8);  // binomial
}

void early_leavers_kernel(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  if (threadIdx.x >= 33) return;
  __syncthreads();
  atomicAdd(out, 1);
}

TEST(Emulation, ThreadsThatLeftAreNotWaitedFor) {
  cuda::Stream stream;
  for_each_schedule([&] {
    cuda::DeviceArray<int> out(stream, 1, "out");
    cuda::check_cuda(cudaMemsetAsync(out.data(), 0, 4, stream), "memset");
    launch(stream, 7, 64, 0, early_leavers_kernel, out.data());
    EXPECT_EQ(cuda::to_host(stream, out.data(), 1)[0], 7 * 33);
  });
}

void deadlock_kernel() {
  if (threadIdx.x < 3) {
    __syncthreads();
  } else if (threadIdx.x < 6) {
    __syncwarp(0xff);
  }
}

void mixed_collectives_kernel() {
  if (threadIdx.x % 2) {
    __shfl_sync(0xffffffffu, 1, 0);
  } else {
    __ballot_sync(0xffffffffu, 1);
  }
}

void wrong_mask_kernel() { __syncwarp(0xfe); }

TEST(Emulation, FaultsOfSynchronisationAreNamed) {
  cuda::Stream stream;
  for_each_schedule([&] {
    const std::string deadlock = fault_of([&] { launch(stream, 1, 8, 0, deadlock_kernel); });
    EXPECT_NE(deadlock.find("deadlock in block (0, 0, 0)"), std::string::npos) << deadlock;
    EXPECT_NE(deadlock.find("3 wait at __syncthreads"), std::string::npos) << deadlock;
    EXPECT_NE(deadlock.find("__syncwarp"), std::string::npos) << deadlock;
    const std::string mixed = fault_of([&] { launch(stream, 1, 32, 0, mixed_collectives_kernel); });
    EXPECT_NE(mixed.find("while lanes of its warp wait at"), std::string::npos) << mixed;
    const std::string mask = fault_of([&] { launch(stream, 1, 32, 0, wrong_mask_kernel); });
    EXPECT_NE(mask.find("leaves its lane out"), std::string::npos) << mask;
  });
}

void throwing_kernel() {
  if (blockIdx.x == 2 && threadIdx.x == 9) throw std::range_error("from a kernel");
  __syncthreads();
}

TEST(Emulation, ExceptionsReachTheLaunch) {
  cuda::Stream stream;
  for_each_schedule([&] { EXPECT_THROW(launch(stream, 4, 64, 0, throwing_kernel), std::range_error); });
}

void awaiting_kernel(int* out, int idle) {
  if (int(threadIdx.x) < idle) return;
  cuda::await_predecessor();
  out[threadIdx.x] = 1;
}

TEST(Emulation, KernelsThatBeginEarlyWaitInEveryThread) {
  cuda::Stream stream;
  for_each_schedule([&] {
    cuda::DeviceArray<int> out(stream, 64, "out");
    launch(stream, 2, 64, 0, awaiting_kernel, out.data(), 3);
    cuda::launch_early(stream, 2, 64, 0, awaiting_kernel, out.data(), 0);
    EXPECT_EQ(cuda::to_host(stream, out.data(), out.size()), std::vector<int>(64, 1));
    const std::string fault = fault_of([&] { cuda::launch_early(stream, 2, 64, 0, awaiting_kernel, out.data(), 1); });
    EXPECT_NE(fault.find("does not wait"), std::string::npos) << fault;
  });
}

TEST(Emulation, LaunchesOutsideTheLimitsFail) {
  cuda::Stream stream;
  EXPECT_THROW(launch(stream, 0, 32, 0, throwing_kernel), Error);
  EXPECT_THROW(launch(stream, 1, 1025, 0, throwing_kernel), Error);
  EXPECT_THROW(launch(stream, dim3(1, 65536), 32, 0, throwing_kernel), Error);
  EXPECT_THROW(launch(stream, 1, 32, cuda::kMostSharedBytes + 1, throwing_kernel), Error);
}

void warp_kernel(int* out) {
  const int lane = int(threadIdx.x) % 32, at = int(threadIdx.x) * 8;
  out[at] = __shfl_sync(0xffffffffu, lane, 5);
  out[at + 1] = __shfl_xor_sync(0xffffffffu, lane, 3);
  out[at + 2] = __shfl_down_sync(0xffffffffu, lane, 4);
  out[at + 3] = __shfl_up_sync(0xffffffffu, lane, 4, 8);
  out[at + 4] = int(__ballot_sync(0xffffffffu, lane % 2));
  if (lane < 8) {
    out[at + 5] = __shfl_sync(0xffu, lane * 10, lane + 1, 8);
    out[at + 6] = __any_sync(0xffu, lane == 7) + 2 * __all_sync(0xffu, lane < 7);
  }
  out[at + 7] = __shfl_xor_sync(0xffffffffu, lane, 16, 16);
}

TEST(Emulation, WarpCollectives) {
  cuda::Stream stream;
  for_each_schedule([&] {
    cuda::DeviceArray<int> out(stream, 64 * 8, "out");
    launch(stream, 1, 64, 0, warp_kernel, out.data());
    const std::vector<int> found = cuda::to_host(stream, out.data(), out.size());
    for (int t = 0; t < 64; ++t) {
      const int lane = t % 32;
      const int* row = found.data() + t * 8;
      EXPECT_EQ(row[0], 5);
      EXPECT_EQ(row[1], lane ^ 3);
      EXPECT_EQ(row[2], lane < 28 ? lane + 4 : lane);
      EXPECT_EQ(row[3], lane % 8 >= 4 ? lane - 4 : lane);
      EXPECT_EQ(unsigned(row[4]), 0xaaaaaaaau);
      if (lane < 8) {
        EXPECT_EQ(row[5], (lane + 1) % 8 * 10);
        EXPECT_EQ(row[6], 1);
      }
      EXPECT_EQ(row[7], lane < 16 ? lane : lane ^ 16);  // a later segment is out of reach, an earlier one is not
    }
  });
}

void votes_kernel(int* out) {
  const int count = __syncthreads_count(threadIdx.x < 10);
  const int any = __syncthreads_or(threadIdx.x == 70), all = __syncthreads_and(threadIdx.x < 99);
  out[threadIdx.x] = count * 100 + any * 10 + all;
}

TEST(Emulation, BarriersCountVotes) {
  cuda::Stream stream;
  for_each_schedule([&] {
    cuda::DeviceArray<int> out(stream, 100, "out");
    launch(stream, 1, 100, 0, votes_kernel, out.data());
    for (const int found : cuda::to_host(stream, out.data(), 100)) EXPECT_EQ(found, 1010);
  });
}

void cub_kernel(int* out) {
  using Scan = cub::BlockScan<int, 96>;
  using Reduce = cub::BlockReduce<int, 96>;
  using Sort = cub::BlockRadixSort<unsigned, 96, 2, int>;
  __shared__ Scan::TempStorage scan;
  __shared__ Reduce::TempStorage reduce;
  __shared__ Sort::TempStorage sort;
  const int me = int(threadIdx.x);
  int before, total;
  Scan(scan).ExclusiveSum(me, before, total);
  const int sum = Reduce(reduce).Sum(me);
  unsigned keys[2] = {unsigned(me * 7 % 96), unsigned(me * 5 % 96)};
  int values[2] = {2 * me, 2 * me + 1};
  Sort(sort).Sort(keys, values);
  out[me] = before;
  out[96 + me] = me == 0 ? sum : total;
  for (int i = 0; i < 2; ++i) {
    out[192 + 2 * me + i] = int(keys[i]);
    out[384 + 2 * me + i] = values[i];
  }
}

TEST(Emulation, CubInBlocks) {
  cuda::Stream stream;
  for_each_schedule([&] {
    cuda::DeviceArray<int> out(stream, 576, "out");
    launch(stream, 1, 96, 0, cub_kernel, out.data());
    const std::vector<int> found = cuda::to_host(stream, out.data(), out.size());
    for (int i = 0; i < 96; ++i) {
      EXPECT_EQ(found[std::size_t(i)], i * (i - 1) / 2);
      EXPECT_EQ(found[std::size_t(96 + i)], 96 * 95 / 2);
      for (int k = 0; k < 2; ++k) {
        const int value = found[std::size_t(384 + 2 * i + k)];
        EXPECT_EQ(found[std::size_t(192 + 2 * i + k)], i);  // 7 and 5 are coprime to 96: each key twice
        EXPECT_EQ(value / 2 * (value % 2 ? 5 : 7) % 96, i);
        EXPECT_LE(found[std::size_t(384 + 2 * i)], value);  // stable
      }
    }
  });
}

void twice_kernel(const int* in, int* out) { out[threadIdx.x] = 2 * in[threadIdx.x]; }

TEST(Emulation, AGraphReadsMemoryAnewAtEachLaunch) {
  cuda::Stream stream;
  cuda::DeviceArray<int> in(stream, 4, "in"), out(stream, 4, "out");
  int host[4] = {1, 2, 3, 4}, back[4] = {};
  cuda::check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  launch(stream, 1, 4, 0, twice_kernel, in.data(), out.data());
  cuda::check_cuda(cudaMemcpyAsync(back, out.data(), 16, cudaMemcpyDeviceToHost, stream), "copy");
  EXPECT_THROW(stream.wait(), Error) << "not while capturing";
  EXPECT_THROW(cuda::DeviceBuffer(stream, 16, "memory"), Error);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cuda::check_cuda(cudaStreamEndCapture(stream, &graph), "capture");
  cuda::check_cuda(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  cudaGraphDestroy(graph);
  EXPECT_EQ(back[0], 0) << "nothing has run yet";
  for (int round = 1; round <= 3; ++round) {
    for (int& value : host) value += round;
    cuda::copy_to_device(stream, in.data(), host, 16);
    cuda::check_cuda(cudaGraphLaunch(exec, stream), "launch");
    stream.wait();
    for (int i = 0; i < 4; ++i) EXPECT_EQ(back[i], 2 * host[i]);
  }
  cudaGraphExecDestroy(exec);
}

TEST(Emulation, MemoryIsLimitedPoisonedAndOnOneSide) {
  cuda::Stream stream;
  const std::size_t before = emulation::used_memory();
  {
    cuda::DeviceArray<float> array(stream, 5, "array");
    EXPECT_EQ(emulation::used_memory(), before + 20);
    for (const float value : cuda::to_host(stream, array.data(), 5)) EXPECT_TRUE(std::isnan(value));
    float host[5] = {};
    EXPECT_THROW(cuda::copy_to_device(stream, host, host, 20), Error);
    EXPECT_THROW(cuda::copy_to_device(stream, array.data(), host, 24), Error);
  }
  EXPECT_EQ(emulation::used_memory(), before);
  const emulation::Device was = emulation::device();
  emulation::device().memory = before + 1000;
  try {
    cuda::DeviceBuffer buffer(stream, 1001, "a large buffer");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("a large buffer: 1001 bytes of device memory wanted, 1000 of "),
              std::string::npos)
        << error.what();
  }
  emulation::device() = was;
}

TEST(Emulation, WithoutADevice) {
  const emulation::Device was = emulation::device();
  emulation::device().present = false;
  try {
    cuda::Stream stream;
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_STREQ(error.what(), "CUDA: creating a stream: no CUDA-capable device is detected");
  }
  emulation::device() = was;
}

/// What a thread reads of its own copies before it waits for them, and after.
void impatient_kernel(const int4* from, int* out) {
  int4* shared = shared_memory<int4>();
  cuda::copy_async_16(shared, from, true);
  cuda::copy_commit();
  cuda::copy_async_16(shared + 1, from, true);
  cuda::copy_commit();
  out[0] = shared[0].x;
  cuda::copy_wait<1>();
  out[1] = shared[0].x;
  out[2] = shared[1].x;
  cuda::copy_wait<0>();
  out[3] = shared[1].x;
}
void misaligned_kernel() { cuda::copy_async_16(shared_memory<char>() + 8, nullptr, false); }
void outside_kernel() {
  std::uint32_t registers[4];
  cuda::load_matrix_x4(registers, shared_memory<char>() + 16 * threadIdx.x);
}

TEST(Emulation, CopiesAreSeenLateOrEarlyByTheSchedule) {
  cuda::Stream stream;
  const int4 value[1] = {{42, 0, 0, 0}};
  const auto from = cuda::to_device<int4>(stream, value, "from");
  const cuda::DeviceArray<int> out(stream, 4, "out");
  for (const bool early : {false, true}) {
    const emulation::Scheduled scope({emulation::Order::forward, 0, early});
    launch(stream, 1, 1, 32, impatient_kernel, from.data(), out.data());
    EXPECT_EQ(cuda::to_host(stream, out.data(), 4),
              (early ? std::vector<int>{42, 42, 42, 42} : std::vector<int>{-1, 42, -1, 42}));
  }
  EXPECT_NE(fault_of([&] { launch(stream, 1, 1, 32, misaligned_kernel); }).find("not a multiple of 16"),
            std::string::npos);
  EXPECT_NE(fault_of([&] { launch(stream, 1, 32, 256, outside_kernel); }).find("outside the block's"),
            std::string::npos);
}

TEST(Emulation, NarrowFloatsRoundAsTheLibrarysDo) {
  std::vector<std::uint32_t> bits;
  for (const std::uint32_t high : {0x0000u, 0x0001u, 0x007fu, 0x3380u, 0x3381u, 0x3f80u, 0x3f81u, 0x387fu, 0x477fu,
                                   0x4780u, 0x7f7fu, 0x7f80u, 0x8000u, 0xbf80u, 0xff7fu, 0xff80u, 0x3c00u, 0x3c12u}) {
    for (const std::uint32_t low : {0x0000u, 0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x2000u, 0x3000u, 0x7fffu, 0x8000u,
                                    0x8001u, 0xe000u, 0xefffu, 0xf000u, 0xffffu}) {
      if ((high & 0x7fff) == 0x7f80 && low != 0) continue;  // NaN
      bits.push_back(high << 16 | low);
    }
  }
  std::mt19937 random(7);
  for (int i = 0; i < 100000; ++i) bits.push_back(random());
  for (const std::uint32_t u : bits) {
    const float x = std::bit_cast<float>(u);
    if (std::isnan(x)) continue;
    ASSERT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(x)), f32_to_bf16(x)) << x;
    ASSERT_EQ(__half_as_ushort(__float2half_rn(x)), f32_to_f16(x)) << x;
  }
  for (unsigned h = 0; h < 0x10000; ++h) {
    const float narrow = __bfloat162float(__ushort_as_bfloat16(std::uint16_t(h)));
    const float half = __half2float(__ushort_as_half(std::uint16_t(h)));
    ASSERT_TRUE(std::isnan(narrow) || narrow == bf16_to_f32(std::uint16_t(h))) << h;
    ASSERT_TRUE(std::isnan(half) || half == f16_to_f32(std::uint16_t(h))) << h;
  }
  EXPECT_TRUE(std::isnan(__bfloat162float(__float2bfloat16_rn(NAN))));
  EXPECT_TRUE(std::isnan(__half2float(__float2half_rn(NAN))));
}

void overrun_kernel(int* out) { out[threadIdx.x * 4] = 1; }

TEST(EmulationDeath, OverrunsCrash) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  cuda::Stream stream;
  cuda::DeviceArray<int> out(stream, 4, "out");
  EXPECT_DEATH(launch(stream, 1, 2, 0, overrun_kernel, out.data()), "");
}

struct Operands {
  int n;
  const int* in;
  int* out;
};
void operands_kernel(Operands p) { p.out[threadIdx.x] = p.in[threadIdx.x]; }

TEST(Emulation, KernelsGetNoHostPointers) {
  cuda::Stream stream;
  const int host[4] = {1, 1, 1, 1};  // on the stack: AddressSanitizer's heap has addresses that look like two numbers
  const auto in = cuda::to_device<int>(stream, host, "in");
  const cuda::DeviceArray<int> out(stream, 4, "out");
  launch(stream, 1, 4, 0, operands_kernel, Operands{32767, in.data(), out.data()});
  EXPECT_THROW(launch(stream, 1, 4, 0, operands_kernel, Operands{4, static_cast<const int*>(host), out.data()}),
               emulation::Fault);
  EXPECT_THROW(launch(stream, 1, 4, 0, twice_kernel, static_cast<const int*>(host), out.data()), emulation::Fault);
}

TEST(EmulationDeath, TheHostCannotTouchGuardedMemory) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const emulation::Guarded guarded;
  cuda::Stream stream;
  const std::vector<int> host(4, 1);
  const auto in = cuda::to_device<int>(stream, host, "in");
  const cuda::DeviceArray<int> out(stream, 4, "out");
  launch(stream, 1, 4, 0, twice_kernel, in.data(), out.data());
  EXPECT_EQ(cuda::to_host(stream, out.data(), 4), std::vector<int>(4, 2));
  EXPECT_DEATH(static_cast<void>(static_cast<volatile int*>(out.data())[1]), "");
}

}  // namespace
}  // namespace fastkv::test
