// Exponentials and row maximum against double.
#include "simd/support/kernel_test.hpp"

namespace fastkv::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// Bound of exp(scale·x − max): 4 eps, the roundings of the argument (as a relative error of the result), and results
/// below 2^-125, which are 0.
double exp_bound(double exact, double scaled, double argument) {
  return exact * (4 + std::abs(scaled) + std::abs(argument)) * kEps + 0x1p-125;
}

class Softmax : public KernelTest {};

TEST_P(Softmax, RowMax) {
  EXPECT_EQ(kernels().row_max(nullptr, 0), -kInf);
  for (const int n : kSizes) {
    for (int peak = 0; peak < n; peak += 7) {
      Aligned<float> x{std::size_t(n)};
      for (float& v : x) v = uniform(-3, -2);
      x[std::size_t(peak)] = -1.5f;
      EXPECT_EQ(kernels().row_max(x.data(), n), -1.5f) << n << ' ' << peak;
    }
  }
}

TEST_P(Softmax, ExponentialOverItsWholeRange) {
  for (float x = -86.8f; x < 88.7f; x += 0.0137f) {
    float y = x;
    kernels().exp_sum(&y, 1, 1.f, 0.f);
    const double exact = std::exp(double(x));
    ASSERT_TRUE(close(y, exact, 4 * kEps * exact)) << x;  // the argument is exact here
  }
  for (const float x : {-87.5f, -1000.f, -3e38f, -kInf}) {
    float y = x;
    EXPECT_EQ(kernels().exp_sum(&y, 1, 1.f, 0.f), 0.f) << x;
    EXPECT_EQ(y, 0.f) << x;
  }
  float zero = 0;
  EXPECT_EQ(kernels().exp_sum(&zero, 1, 1.f, 0.f), 1.f);
  float high = 100;
  EXPECT_EQ(kernels().exp_sum(&high, 1, 1.f, 0.f), kInf);
  float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(kernels().exp_sum(&nan, 1, 1.f, 0.f)));
}

TEST_P(Softmax, ExpSum) {
  for (const int n : kSizes) {
    SCOPED_TRACE(n);
    const float scale = 0.125f;
    Aligned<float> x{std::size_t(n)};
    for (float& v : x) v = uniform(-300, 40);
    const float max = scale * kernels().row_max(x.data(), n);
    std::vector<double> expected, bounds;
    for (const float v : x) {
      const double t = double(scale) * v - max;
      expected.push_back(std::exp(t)), bounds.push_back(exp_bound(expected.back(), double(scale) * v, t));
    }
    const float total = kernels().exp_sum(x.data(), n, scale, max);
    expect_close(x, expected, bounds);
    double sum = 0;
    for (const float p : x) sum += p;
    expect_close(total, sum, (n / 16.0 + 5) * kEps * sum);
  }
}

FASTKV_EVERY_ISA(Softmax);

}  // namespace
}  // namespace fastkv::test
