// OpenBLAS called from several threads at once: the serial build loses rows here, the one we load must not.
#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "backend/cpu/gemm_openblas.hpp"

namespace fastkv::cpu {
namespace {

TEST(OpenBlas, ManyThreadsAtOnceGetWhatOneThreadGets) {
  constexpr std::int64_t m = 16, n = 192, k = 576;
  const OpenBlas& blas = OpenBlas::load(simd::best_isa());
  constexpr unsigned seed = 20260722;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> a(m * k), b(k * n), expected(m * n);
  for (float& x : a) x = normal(random);
  for (float& x : b) x = normal(random);
  blas.gemm(m, n, k, a.data(), k, b.data(), n, expected.data(), n);

  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& count : wrong)
    threads.emplace_back([&] {
      std::vector<float> c(m * n);
      for (int repeat = 0; repeat < 2000; ++repeat) {
        blas.gemm(m, n, k, a.data(), k, b.data(), n, c.data(), n);
        count += c != expected;
      }
    });
  for (std::thread& t : threads) t.join();
  for (int count : wrong) EXPECT_EQ(count, 0) << "of 2000 products, seed " << seed;
}

}  // namespace
}  // namespace fastkv::cpu
