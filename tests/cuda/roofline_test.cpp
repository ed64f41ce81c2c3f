// What fastkv-bench roofline measures of a device: limits that read and multiply what they say, a row for each kernel.
#include "backend/cuda/roofline.hpp"

#include <cmath>
#include <set>

#include "backend/cuda/kernels/cache.hpp"
#include "backend/cuda/kernels/stream.hpp"
#include "cuda_test.hpp"
#include "fastkv/error.hpp"
#include "random_rows.hpp"

namespace fastkv::test {
namespace {

RooflineSizes small_sizes() {
  return {.edge = 64,
          .stream_bytes = std::size_t(16) << 10,
          .rows = {3, 20},
          .keys = {64, 150},
          .cached = {40, 200},
          .burst_seconds = 1e-6};
}

TEST(CudaRoofline, ReadsEveryWordOnEveryPass) {
  cuda::Stream stream;
  for (const std::size_t words : {4, 8, 4 * 511, 4 * 2048, 4 * 2049, 4 * 7777}) {
    std::vector<std::uint32_t> values(words);
    std::uint32_t expected = 0;
    for (std::size_t i = 0; i < words; ++i) expected += values[i] = std::uint32_t(i * 2654435761u + 12345);
    const auto from = on_device(stream, values);
    for (const auto& [blocks, passes] : {std::pair{1, 1}, {3, 2}, {64, 1}}) {
      const cuda::DeviceArray<std::uint32_t> sums(stream, cuda::read_sums(blocks), "sums");
      for_each_schedule([&] {
        cuda::read_all(stream, from.data(), from.bytes(), passes, blocks, sums.data());
        std::uint32_t found = 0;
        for (const std::uint32_t sum : cuda::to_host(stream, sums.data(), sums.size())) found += sum;
        EXPECT_EQ(found, std::uint32_t(passes) * expected) << words << " words, " << blocks << " blocks";
      });
    }
  }
}

TEST(CudaRoofline, RandomNumbersAreEvenlySpread) {
  cuda::Stream stream;
  const cuda::DeviceArray<bf16> numbers(stream, 20000, "numbers");
  cuda::fill_random(stream, numbers.data(), numbers.size());
  double sum = 0, squares = 0, neighbours = 0, before = 0;
  std::set<double> seen;
  for (const bf16 x : cuda::to_host(stream, numbers.data(), numbers.size())) {
    ASSERT_TRUE(value(x) >= -1 && value(x) < 1) << value(x);
    sum += value(x), squares += value(x) * value(x), neighbours += value(x) * before;
    before = value(x);
    seen.insert(value(x));
  }
  EXPECT_EQ(seen.size(), 256u);
  // of uniform numbers: five deviations of each mean
  const double n = 20000, five = 5 / std::sqrt(n);
  EXPECT_NEAR(sum / n, -1.0 / 256, five * std::sqrt(1.0 / 3));
  EXPECT_NEAR(squares / n, 1.0 / 3, five * std::sqrt(4.0 / 45));
  EXPECT_NEAR(neighbours / n, 0, five / 3);
}

TEST(CudaRoofline, TheHostTouchesNoDeviceMemory) {
  for_each_schedule([] {
    cuda::Roofline roofline({.edge = 16, .stream_bytes = 1, .rows = {2}, .keys = {20}, .cached = {10}});
    for (const DeviceKernel& kernel : roofline.kernels({32, 32, 2, 1, 32, 10})) roofline.seconds(kernel, 1);
  });
}

TEST(CudaRoofline, LimitsAreRates) {
  cuda::Roofline roofline(small_sizes());
  EXPECT_FALSE(roofline.device().empty());
  EXPECT_EQ(roofline.isa().rfind("sm_", 0), 0u);
  EXPECT_EQ(roofline.library().rfind("cublasLt ", 0), 0u);
  EXPECT_EQ(roofline.product_shape(), "64 x 64 x 64");
  for (const double rate : {roofline.operations(), roofline.read_bandwidth(1), roofline.read_bandwidth(2 << 20)})
    EXPECT_TRUE(std::isfinite(rate) && rate > 0) << rate;
}

/// Shapes with everything, with heads of other sizes, and with rows too narrow for weights in groups and q8_0.
std::vector<DecoderShape> shapes() {
  return {{64, 96, 4, 2, 32, 500}, {128, 160, 3, 3, 64, 333}, {72, 100, 2, 1, 24, 77}};
}

TEST(CudaRoofline, EveryKernelRunsAndHasARow) {
  for (const DecoderShape& shape : shapes()) {
    cuda::Roofline roofline(small_sizes());
    const std::vector<DeviceKernel> kernels = roofline.kernels(shape);
    std::set<std::string> rows, names;
    for (const DeviceKernel& kernel : kernels) {
      SCOPED_TRACE(kernel.name + ", " + kernel.shape);
      EXPECT_TRUE(rows.insert(kernel.name + kernel.shape).second) << "two rows of one name";
      names.insert(kernel.name);
      EXPECT_TRUE(std::isfinite(kernel.work) && kernel.work > 0) << kernel.work;
      EXPECT_GE(kernel.calls, 1);
      const double seconds = roofline.seconds(kernel, 2);
      EXPECT_TRUE(std::isfinite(seconds) && seconds > 0) << seconds;
    }
    std::set<std::string> expected = {"gemm q",
                                      "gemm k and v",
                                      "gemm o onto the residual",
                                      "gemm gate and up",
                                      "gemm down onto the residual",
                                      "attention_prefill",
                                      "attention_prefill of gathered rows",
                                      "column_scores",
                                      "pool",
                                      "reduce_heads",
                                      "top_k",
                                      "rms_norm",
                                      "silu_mul",
                                      "rotate_queries",
                                      "store_layer_kv",
                                      "attention_decode f32",
                                      "attention_decode f16",
                                      "attention_decode bf16",
                                      "embed_token",
                                      "arg_max"};
    for (const char* product :
         {"project q, k, v", "add_product o", "gate_up", "add_product down", "project output head"}) {
      expected.insert(std::string(product) + " bf16");
      if (shape.n_embd % 32 == 0) expected.insert({std::string(product) + " q8", std::string(product) + " q4"});
    }
    if (shape.head_dim % 32 == 0) expected.insert("attention_decode q8_0");
    EXPECT_EQ(names, expected);
  }
}

/// What is counted for a row, on one shape, by hand.
TEST(CudaRoofline, WorkIsWhatTheKernelsDo) {
  cuda::Roofline roofline(small_sizes());
  double found[7] = {};
  for (const DeviceKernel& k : roofline.kernels({64, 96, 4, 2, 32, 500})) {
    if (k.name == "gemm gate and up" && k.shape == "20 x 64 x 192") found[0] = k.work;
    if (k.name == "attention_prefill" && k.shape == "20 x 4/2 heads of 32, 150 keys") found[1] = k.work;
    if (k.name == "attention_prefill of gathered rows" && k.shape == "12 x 4/2 heads of 32, 64 keys") found[2] = k.work;
    if (k.name == "project q, k, v q4") found[3] = k.work;
    if (k.name == "add_product down q8") found[6] = k.work;
    if (k.name == "attention_decode q8_0" && k.shape == "4/2 heads of 32, 40 rows") found[4] = k.work;
    if (k.name == "column_scores" && k.shape == "8 x 4/2 heads of 32, 64 keys") found[5] = k.work;
  }
  EXPECT_EQ(found[0], 2.0 * 20 * 64 * 192);
  double seen = 0;
  for (int row = 130; row < 150; ++row) seen += row + 1;
  EXPECT_EQ(found[1], 4.0 * 128 * seen);
  seen = 0;
  for (int row = 4; row < 60; row += 5) seen += row + 1;
  EXPECT_EQ(found[2], 4.0 * 128 * seen);
  EXPECT_EQ(found[3], 256.0 * 64 * 20 / 32);
  EXPECT_EQ(found[4], 2.0 * 2 * 40 * double(cuda::cache_row_bytes(CacheType::q8_0, 32)));
  EXPECT_EQ(found[5], 64.0 * 64 * 2);
  EXPECT_EQ(found[6], 96.0 * 64 * 36 / 32);
}

}  // namespace
}  // namespace fastkv::test
