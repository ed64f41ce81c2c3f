// Kernels on rows: norm, sums, SwiGLU, rotary embedding, rounding and quantising, at lengths around the vector width.
#include "simd/support/kernel_test.hpp"
#include "simd/support/narrow.hpp"

namespace fastkv::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Rows : public KernelTest {};

/// `found` is x rounded to bfloat16, or a zero of its sign for a subnormal one.
void expect_rounded(std::uint16_t found, float x) {
  if (std::fpclassify(x) == FP_SUBNORMAL && (found & 0x7fff) == 0) {
    EXPECT_EQ(found >> 15, std::uint16_t(std::signbit(x))) << x;
  } else {
    EXPECT_EQ(found, to_bf16(x)) << x;
  }
}

TEST_P(Rows, RmsNorm) {
  for (const int n : kSizes) {
    SCOPED_TRACE(n);
    const Aligned<float> x = values(std::size_t(n)), weight = values(std::size_t(n));
    const float eps = 1e-5f;
    double squares = 0;
    for (const float v : x) squares += double(v) * v;
    const double factor = 1 / std::sqrt(squares / n + double(eps));
    std::vector<double> expected, bounds;
    for (int i = 0; i < n; ++i) {
      expected.push_back(x[std::size_t(i)] * factor * weight[std::size_t(i)]);
      // Half of the sum's error (n/16 additions a lane, 4 folds, the square, the division, eps), then sqrt, 1/x, two
      // products.
      bounds.push_back(std::abs(expected.back()) * ((n / 16.0 + 8) / 2 + 4) * kEps);
    }
    Aligned<float> out{std::size_t(n)};
    kernels().rms_norm(x.data(), weight.data(), n, eps, out.data());
    expect_close(out, expected, bounds);
    Aligned<float> in_place{std::size_t(n)};
    std::copy(x.begin(), x.end(), in_place.begin());
    kernels().rms_norm(in_place.data(), weight.data(), n, eps, in_place.data());
    EXPECT_EQ(bits(in_place), bits(out));
  }
}

TEST_P(Rows, AddAndScaleRoundOnce) {
  for (const int n : kSizes) {
    SCOPED_TRACE(n);
    const Aligned<float> x = values(std::size_t(n)), y = values(std::size_t(n));
    Aligned<float> sum{std::size_t(n)}, product{std::size_t(n)};
    std::copy(x.begin(), x.end(), sum.begin());
    std::copy(x.begin(), x.end(), product.begin());
    kernels().add(sum.data(), y.data(), n);
    kernels().scale(product.data(), 0.7f, n);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(sum[i], x[i] + y[i]);
      EXPECT_EQ(product[i], x[i] * 0.7f);
    }
  }
}

TEST_P(Rows, Axpy) {
  for (const int n : kSizes) {
    SCOPED_TRACE(n);
    const Aligned<float> x = values(std::size_t(n)), before = values(std::size_t(n));
    Aligned<float> y{std::size_t(n)};
    std::copy(before.begin(), before.end(), y.begin());
    kernels().axpy(-1.3f, x.data(), n, y.data());
    std::vector<double> expected, bounds;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double product = double(-1.3f) * x[i];
      expected.push_back(product + before[i]);
      bounds.push_back(2 * kEps * (std::abs(product) + std::abs(double(before[i]))));
    }
    expect_close(y, expected, bounds);
  }
}

TEST_P(Rows, SiluMul) {
  for (const int n : kSizes) {
    SCOPED_TRACE(n);
    Aligned<float> gate = values(std::size_t(n));
    const Aligned<float> up = values(std::size_t(n));
    const float special[] = {0, -0.f, 1e-30f, 20, -20, 86, -86, 87.5f, -87.5f, 88.6f, -88.6f, 200, -200, 1e37f, -1e37f};
    for (std::size_t i = 0; i < gate.size() && i < std::size(special); ++i) gate[i] = special[i];
    std::vector<double> expected, bounds;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      expected.push_back(gate[i] / (1 + std::exp(-double(gate[i]))) * up[i]);
      // 4 eps of the exponential, an addition, a division, a product; e^x is 0 below −86.9 and infinite above 88.8.
      bounds.push_back(std::abs(expected.back()) * 8 * kEps + 1e-35 * std::abs(up[i]));
    }
    Aligned<float> out(gate.size());
    kernels().silu_mul(gate.data(), up.data(), n, out.data());
    expect_close(out, expected, bounds);
    for (std::size_t i = 0; i < gate.size(); ++i) bounds[i] = std::abs(expected[i]) * 0x1p-12 + 1e-35 * std::abs(up[i]);
    kernels().silu_mul_narrow(gate.data(), up.data(), n, out.data());
    expect_close(out, expected, bounds);
  }
}

TEST_P(Rows, RopeRotatesAdjacentPairs) {
  for (const int d : {2, 14, 16, 30, 64, 80, 96, 128}) {
    SCOPED_TRACE(d);
    const int heads = 3;
    const Aligned<float> before = values(std::size_t(heads * d));
    Aligned<float> table{std::size_t(d)}, x(before.size());
    for (int i = 0; i < d / 2; ++i) {
      const double angle = 12345 * std::pow(10000.0, -2.0 * i / d);
      table[std::size_t(2 * i)] = float(std::cos(angle)), table[std::size_t(2 * i + 1)] = float(std::sin(angle));
    }
    std::copy(before.begin(), before.end(), x.begin());
    kernels().rope(x.data(), table.data(), heads, d);
    std::vector<double> expected, bounds;
    for (std::size_t i = 0; i < x.size(); i += 2) {
      const double a = before[i], b = before[i + 1], c = table[i % std::size_t(d)], s = table[i % std::size_t(d) + 1];
      expected.insert(expected.end(), {a * c - b * s, a * s + b * c});
      bounds.insert(bounds.end(),
                    {2 * kEps * (std::abs(a * c) + std::abs(b * s)), 2 * kEps * (std::abs(a * s) + std::abs(b * c))});
    }
    expect_close(x, expected, bounds);
  }
}

TEST_P(Rows, Bfloat16RoundsToNearestEven) {
  for (const int n : kSizes) {
    SCOPED_TRACE(n);
    Aligned<float> x = values(std::size_t(n));
    const std::uint32_t special[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x3f817fff, 0x7f7fffff,
                                     0x00000001, 0x00008000, 0x80018000, 0xff800000, 0x7fc00000,
                                     0x7f800001, 0xffffffff, 0x00018000, 0xbf818000};
    std::memcpy(x.data(), special, std::min(sizeof special, x.size() * 4));
    Aligned<std::uint16_t> out(x.size());
    kernels().f32_to_bf16(x.data(), n, out.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(bf16_value(out[i])));
      } else {
        expect_rounded(out[i], x[i]);
      }
    }
  }
}

TEST_P(Rows, QuantizeInt8) {
  for (const int k : kSizes) {
    for (const float magnitude : {1.f, 1e30f, 1e-30f}) {
      SCOPED_TRACE(testing::Message() << k << " values near " << magnitude);
      Aligned<float> x = values(std::size_t(k));
      for (float& v : x) v *= magnitude;
      const std::size_t k32 = std::size_t((k + 31) / 32 * 32);
      Aligned<std::int8_t> q(k32);
      Aligned<float> scale(k32 / 32);
      Aligned<std::int32_t> sum(k32 / 16);
      std::fill(q.begin(), q.end(), std::int8_t(99));
      kernels().quantize_i8(x.data(), k, q.data(), scale.data(), sum.data());
      for (std::size_t g = 0; g < k32 / 32; ++g) {
        float top = 0;
        for (std::size_t i = 32 * g; i < std::min(32 * g + 32, x.size()); ++i) top = std::max(top, std::abs(x[i]));
        EXPECT_EQ(scale[g], top / 127.f);
        for (std::size_t i = 32 * g; i < 32 * g + 32; ++i) {
          if (i >= x.size()) {
            EXPECT_EQ(q[i], 0);
          } else {
            EXPECT_GE(q[i], -127);
            EXPECT_TRUE(close(double(scale[g]) * q[i], x[i], scale[g] * (0.5 + 127 * 4 * kEps))) << i;
          }
        }
      }
      for (std::size_t s = 0; s < sum.size(); ++s) {
        std::int32_t expected = 0;
        for (std::size_t i = 16 * s; i < 16 * s + 16; ++i) expected += q[i];
        EXPECT_EQ(sum[s], expected);
      }
    }
  }
}

TEST_P(Rows, QuantizeZerosAndTinyValues) {
  for (const float value : {0.f, 1e-40f, 1e-37f}) {
    Aligned<float> x(32);
    std::fill(x.begin(), x.end(), value);
    Aligned<std::int8_t> q(32);
    Aligned<float> scale(1);
    Aligned<std::int32_t> sum(2);
    kernels().quantize_i8(x.data(), 32, q.data(), scale.data(), sum.data());
    EXPECT_TRUE(close(double(scale[0]) * q[0], 0, 0)) << "below 2^-119 a group is zero";
    EXPECT_EQ(sum[0], 0);
  }
}

TEST_P(Rows, EncodeRow) {
  using simd::RowType;
  for (const int d : {2, 16, 32, 64, 80, 96, 128}) {
    SCOPED_TRACE(d);
    Aligned<float> x = values(std::size_t(d));
    const float special[] = {65504, 65519, 65520, -70000, kInf, -kInf, 6e-8f, 2.9e-8f, 3e-8f, -6.1e-5f, 6.09e-5f, kNan};
    if (d >= 16) std::copy(std::begin(special), std::end(special), x.begin());
    std::vector<std::uint8_t> row(simd::row_bytes(RowType::f32, d));
    kernels().encode_row(RowType::f32, x.data(), d, row.data());
    EXPECT_EQ(std::memcmp(row.data(), x.data(), row.size()), 0);
    Aligned<std::uint16_t> narrow(x.size());
    kernels().encode_row(RowType::f16, x.data(), d, narrow.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(half_value(narrow[i])));
      } else {
        EXPECT_EQ(narrow[i], to_half(x[i])) << x[i];
      }
    }
    kernels().encode_row(RowType::bf16, x.data(), d, narrow.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (!std::isnan(x[i])) {
        expect_rounded(narrow[i], x[i]);
      }
    }
  }
}

TEST_P(Rows, EncodeRowQ8) {
  for (const float magnitude : {1.f, 1e-4f, 1e-9f, 1e7f, 0.f}) {
    SCOPED_TRACE(magnitude);
    const int d = 96;
    Aligned<float> x = values(std::size_t(d));
    for (float& v : x) v *= magnitude;
    std::vector<std::uint8_t> row(simd::row_bytes(simd::RowType::q8_0, d));
    ASSERT_EQ(row.size(), 102u);
    kernels().encode_row(simd::RowType::q8_0, x.data(), d, row.data());
    for (std::size_t g = 0; g < 3; ++g) {
      float top = 0;
      for (std::size_t i = 32 * g; i < 32 * g + 32; ++i) top = std::max(top, std::abs(x[i]));
      std::uint16_t half;
      std::memcpy(&half, row.data() + 34 * g, 2);
      EXPECT_EQ(half, to_half(top / 127.f));
      const double scale = half_value(half);
      for (std::size_t i = 32 * g; i < 32 * g + 32; ++i) {
        const int q = std::int8_t(row[34 * g + 2 + i - 32 * g]);
        // Half a step, or what lies beyond 127 steps of a rounded-down scale.
        const double beyond = std::max(0.0, std::abs(double(x[i])) - 127 * scale);
        EXPECT_TRUE(close(scale * q, x[i], std::max(scale * (0.5 + 127 * 4 * kEps), beyond))) << i;
      }
    }
  }
}

FASTKV_EVERY_ISA(Rows);

}  // namespace
}  // namespace fastkv::test
