// Exponentials, row maximum and the online softmax against double.
#include "simd/support/kernel_test.hpp"
#include "simd/support/narrow.hpp"

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

TEST_P(Softmax, BlocksOfAnOnlineSoftmax) {
  for (const bool narrow : {false, true}) {
    float m = -kInf, l = 0;
    for (const int n : {1, 15, 16, 17, 31, 32, 33, 0, 64}) {
      SCOPED_TRACE(n);
      const int n_pad = std::max(16, (n + 15) / 16 * 16) + (n == 17 ? 16 : 0);
      const float scale = 0.3f;
      Aligned<float> s{std::size_t(n_pad)};
      for (float& v : s) v = uniform(-100, 100);
      for (std::size_t i = std::size_t(n); i < s.size(); ++i) s[i] = 1e9f;  // must not be looked at
      const Aligned<float> before = [&] {
        Aligned<float> copy(s.size());
        std::copy(s.begin(), s.end(), copy.begin());
        return copy;
      }();
      Aligned<std::uint16_t> p16(s.size());
      std::fill(p16.begin(), p16.end(), std::uint16_t(7));
      const float m0 = m, l0 = l;
      const float alpha = kernels().softmax_block(s.data(), n, n_pad, scale, &m, &l, narrow ? p16.data() : nullptr);
      float top = -kInf;
      for (int i = 0; i < n; ++i) top = std::max(top, before[std::size_t(i)]);
      EXPECT_EQ(m, n ? std::max(m0, scale * top) : m0);
      if (n == 0) {
        EXPECT_EQ(alpha, 1.f);
      } else if (m0 == -kInf) {
        EXPECT_EQ(alpha, 0.f);
      } else {
        expect_close(alpha, std::exp(double(m0) - m), exp_bound(std::exp(double(m0) - m), 0, double(m0) - m));
      }
      double sum = double(alpha) * l0;
      for (std::size_t i = 0; i < s.size(); ++i) {
        if (i >= std::size_t(n)) {
          ASSERT_EQ(s[i], 0.f) << i;
          if (narrow) {
            ASSERT_EQ(p16[i], 0) << i;
          }
          continue;
        }
        const double t = double(scale) * before[i] - m;
        ASSERT_TRUE(close(s[i], std::exp(t), exp_bound(std::exp(t), double(scale) * before[i], t))) << i;
        if (narrow) {
          ASSERT_EQ(p16[i], to_bf16(s[i])) << i;
        }
        sum += narrow ? bf16_value(p16[i]) : s[i];
      }
      expect_close(l, sum, (n / 16.0 + 7) * kEps * sum);
    }
  }
}

TEST_P(Softmax, MaskedScoresGiveZerosNotNan) {
  float m = -kInf, l = 0;
  Aligned<float> s(16);
  std::fill(s.begin(), s.end(), -kInf);
  EXPECT_EQ(kernels().softmax_block(s.data(), 16, 16, 1.f, &m, &l, nullptr), 1.f);
  for (const float p : s) EXPECT_EQ(p, 0.f);
  EXPECT_EQ(l, 0.f);
  EXPECT_EQ(m, -kInf);
  s[3] = 2.f;
  for (std::size_t i = 0; i < 16; ++i) s[i] = i == 3 ? 2.f : -kInf;
  EXPECT_EQ(kernels().softmax_block(s.data(), 16, 16, 1.f, &m, &l, nullptr), 0.f);
  EXPECT_EQ(s[3], 1.f);
  EXPECT_EQ(s[4], 0.f);
  EXPECT_EQ(l, 1.f);
}

FASTKV_EVERY_ISA(Softmax);

}  // namespace
}  // namespace fastkv::test
