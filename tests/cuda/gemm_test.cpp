// Matrix products of the CUDA backend against double sums, and that a row's result is its own.
#include "backend/cuda/gemm.hpp"

#include <cstring>
#include <ostream>
#include <random>
#include <vector>

#include "backend/cuda/device.hpp"
#include "cuda_test.hpp"
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

using cuda::to_device;
using bf16 = __nv_bfloat16;

template <class T>
std::vector<T> random_values(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> out(n);
  for (T& value : out) value = T(normal(random));
  return out;
}

struct Case {
  int m, out, in;
  bool bias;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << "[" << c.m << ", " << c.in << "] x [" << c.out << ", " << c.in << "]T" << (c.bias ? " + bias" : "");
}

class GemmTest : public testing::TestWithParam<Case> {};

/// y, and how far the device may be off: float32 sums in any order, then one rounding to y's type.
struct Expected {
  std::vector<double> y, bounds;
};
template <class Y>
Expected expected(const Case& c, const std::vector<bf16>& x, const std::vector<bf16>& w, const std::vector<Y>* bias,
                  const std::vector<float>* before) {
  Expected out;
  for (int i = 0; i < c.m; ++i) {
    for (int o = 0; o < c.out; ++o) {
      const std::size_t at = std::size_t(i) * std::size_t(c.out) + std::size_t(o);
      double sum = before ? double((*before)[at]) : 0, size = std::abs(sum);
      const auto add = [&](double term) {
        sum += term;
        size += std::abs(term);
      };
      for (int k = 0; k < c.in; ++k)
        add(double(float(x[std::size_t(i * c.in + k)])) * double(float(w[std::size_t(o * c.in + k)])));
      if (bias) add(double(float((*bias)[std::size_t(o)])));
      // Tensor cores may cut what they add to instead of rounding it: two roundoffs a term.
      const double summed = 2 * kEps * (c.in + 2) * size;
      out.y.push_back(sum);
      out.bounds.push_back(summed + (sizeof(Y) == 2 ? 0x1p-8 * (std::abs(sum) + summed) : 0));
    }
  }
  return out;
}

TEST_P(GemmTest, ProductsAreThoseOfDoubles) {
  const Case c = GetParam();
  const auto x = random_values<bf16>(std::size_t(c.m * c.in), 1), w = random_values<bf16>(std::size_t(c.out * c.in), 2);
  const auto narrow_bias = random_values<bf16>(std::size_t(c.out), 3);
  const auto bias = random_values<float>(std::size_t(c.out), 3);
  const auto before = random_values<float>(std::size_t(c.m * c.out), 4);
  cuda::Stream stream;
  cuda::Gemm gemm(stream);
  const auto dx = to_device<bf16>(stream, x, "x"), dw = to_device<bf16>(stream, w, "w");
  const auto d_narrow = to_device<bf16>(stream, narrow_bias, "bias");
  const auto d_bias = to_device<float>(stream, bias, "bias");
  const std::size_t n = std::size_t(c.m * c.out);
  cuda::DeviceArray<bf16> narrow(stream, n, "y");
  gemm.multiply(dx.data(), c.m, dw.data(), c.bias ? d_narrow.data() : nullptr, c.out, c.in, narrow.data());
  const Expected rounded = expected(c, x, w, c.bias ? &narrow_bias : nullptr, nullptr);
  expect_close(cuda::to_host(stream, narrow.data(), n), rounded.y, rounded.bounds);

  cuda::DeviceArray<float> y(stream, n, "y");
  gemm.multiply(dx.data(), c.m, dw.data(), c.bias ? d_bias.data() : nullptr, c.out, c.in, y.data());
  const Expected wide = expected(c, x, w, c.bias ? &bias : nullptr, nullptr);
  expect_close(cuda::to_host(stream, y.data(), n), wide.y, wide.bounds);

  const auto sum = to_device<float>(stream, before, "y");
  gemm.add_product(dx.data(), c.m, dw.data(), c.bias ? d_bias.data() : nullptr, c.out, c.in, sum.data());
  const Expected added = expected(c, x, w, c.bias ? &bias : nullptr, &before);
  expect_close(cuda::to_host(stream, sum.data(), n), added.y, added.bounds);
}

/// Each row alone, and in part of the rows, gives the bits that it gives among all.
TEST_P(GemmTest, ARowsResultIsItsOwn) {
  const Case c = GetParam();
  cuda::Stream stream;
  cuda::Gemm gemm(stream);
  const auto dx = to_device<bf16>(stream, random_values<bf16>(std::size_t(c.m * c.in), 5), "x");
  const auto dw = to_device<bf16>(stream, random_values<bf16>(std::size_t(c.out * c.in), 6), "w");
  const std::size_t width = std::size_t(c.out), rows = std::size_t(c.m);
  cuda::DeviceArray<float> y(stream, rows * width, "y");
  gemm.multiply(dx.data(), c.m, dw.data(), nullptr, c.out, c.in, y.data());
  const std::vector<float> all = cuda::to_host(stream, y.data(), rows * width);
  for (const std::int64_t first : {0, c.m / 2, c.m - 1}) {
    for (const std::int64_t m : {std::int64_t(1), c.m - first}) {
      gemm.multiply(dx.data() + first * c.in, m, dw.data(), nullptr, c.out, c.in, y.data());
      const std::vector<float> part = cuda::to_host(stream, y.data(), std::size_t(m) * width);
      EXPECT_EQ(0, std::memcmp(part.data(), all.data() + std::size_t(first) * width, part.size() * sizeof(float)))
          << "rows " << first << " to " << first + m;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GemmTest,
                         testing::Values(Case{1, 8, 8, true}, Case{15, 64, 72, false}, Case{16, 64, 64, true},
                                         Case{17, 200, 64, true}, Case{19, 67, 36, true},
                                         Case{64, 65 * 8, 8 * 33, false}, Case{130, 48, 576, true}),
                         [](const auto& test) {
                           const Case& c = test.param;
                           return std::to_string(c.m) + "_" + std::to_string(c.out) + "_" + std::to_string(c.in) +
                                  (c.bias ? "_bias" : "");
                         });

/// Algorithms that serve the rows asked about and no others are good enough then.
TEST(Gemm, FirstChoicesGiveTheSameProducts) {
  cuda::Stream stream;
  cuda::Gemm gemm(stream, cuda::Algorithms::first_choice);
  for (const int m : {17, 5, 17}) {
    const Case c{m, 64, 72, false};
    const auto x = random_values<bf16>(std::size_t(c.m * c.in), 1),
               w = random_values<bf16>(std::size_t(c.out * c.in), 2);
    const auto dx = to_device<bf16>(stream, x, "x"), dw = to_device<bf16>(stream, w, "w");
    cuda::DeviceArray<float> y(stream, std::size_t(c.m * c.out), "y");
    gemm.multiply(dx.data(), c.m, dw.data(), nullptr, c.out, c.in, y.data());
    const Expected right = expected<float>(c, x, w, nullptr, nullptr);
    expect_close(cuda::to_host(stream, y.data(), y.size()), right.y, right.bounds);
  }
}

TEST(Gemm, NothingToDoWithoutRows) {
  cuda::Stream stream;
  cuda::Gemm gemm(stream);
  gemm.expect_rows(3);
  gemm.multiply(nullptr, 0, nullptr, static_cast<const float*>(nullptr), 8, 8, static_cast<float*>(nullptr));
  EXPECT_EQ(cuda::Gemm::version().rfind("cublasLt 1", 0), 0u) << cuda::Gemm::version();
}

}  // namespace
}  // namespace fastkv::test
