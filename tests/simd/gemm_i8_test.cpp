// Prefill's int8 arithmetic: rotation and rounding of both operands, and their product, against sums in double.
#include <bit>

#include "simd/support/panels.hpp"

namespace fastkv::test {
namespace {

using simd::kRotation;
using simd::Packing;

constexpr int kZero = simd::kWeightZero;
/// Whether the level adds two products in 16 bits; see RotatedRows.
bool pairs_in_16_bits(simd::Isa isa) { return isa == simd::Isa::avx2 || isa == simd::Isa::avx512; }
std::int64_t padded(std::int64_t k) { return (k + kRotation - 1) / kRotation * kRotation; }
/// Where RotatedPanels::q has input i of row r of a panel.
std::size_t code_at(std::int64_t i, int r) { return std::size_t(i / 4 * 64 + r * 4 + i % 4); }

/// H x of each block of 64, x padded with zeros, and Σ|x| of each block.
struct Rotated {
  std::vector<double> value, magnitude;
};
template <class At>
Rotated rotate(std::int64_t k, At&& at) {
  Rotated out{std::vector<double>(std::size_t(padded(k))), std::vector<double>(std::size_t(padded(k)))};
  for (std::int64_t i = 0; i < padded(k); ++i) {
    const std::int64_t block = i / kRotation * kRotation;
    for (std::int64_t j = block; j < std::min(k, block + kRotation); ++j) {
      const double x = at(j);
      out.value[std::size_t(i)] += std::popcount(unsigned((i - block) & (j - block))) % 2 ? -x : x;
      out.magnitude[std::size_t(i)] += std::abs(x);
    }
  }
  return out;
}

/// The largest |value| of group g, or with `pairs` |sum| of a pair in it.
double top(const Rotated& r, std::int64_t g, std::int64_t group, bool pairs = false) {
  double t = 0;
  for (std::size_t i = std::size_t(g * group); i < std::min(r.value.size(), std::size_t((g + 1) * group)); ++i)
    t = std::max({t, std::abs(r.value[i]), pairs ? std::abs(r.value[i] + r.value[i ^ 1]) : 0});
  return t;
}

class GemmI8 : public KernelTest {
 protected:
  std::int64_t group() const { return kernels().wide_group; }
  std::int64_t groups_of(std::int64_t k64) const { return (k64 + group() - 1) / group(); }
  struct Operands {
    Aligned<std::int8_t> aq;
    Aligned<float> a_scale;
    Aligned<std::int32_t> sum;
    Aligned<std::uint8_t> bq;
    Aligned<float> b_scale;
    simd::RotatedRows rows() const { return {aq.data(), a_scale.data(), sum.data()}; }
    simd::RotatedPanels panels() const { return {bq.data(), b_scale.data()}; }
  };
  /// Codes at random, or at the ends of their ranges.
  Operands operands(std::int64_t m, std::int64_t k64, std::int64_t panels, Codes codes = Codes::random) {
    const std::int64_t groups = groups_of(k64);
    Operands o{Aligned<std::int8_t>(std::size_t(m * k64)), Aligned<float>(std::size_t(m * groups)),
               Aligned<std::int32_t>(std::size_t(m * groups)), Aligned<std::uint8_t>(std::size_t(panels * 16 * k64)),
               Aligned<float>(std::size_t(panels * 16 * groups))};
    for (std::int64_t i = 0; i < m * k64; ++i) {
      int q = codes == Codes::random ? integer(-127, 127) : integer(0, 1) ? 127 : -127;
      if (pairs_in_16_bits(GetParam()) && i % 2) {
        const int before = o.aq[std::size_t(i - 1)];
        q = std::clamp(q, -128 - std::min(before, -1), 128 - std::max(before, 1));
      }
      o.aq[std::size_t(i)] = std::int8_t(q);
      o.sum[std::size_t(i / k64 * groups + i % k64 / group())] += q;
    }
    for (std::uint8_t& q : o.bq) q = std::uint8_t(codes == Codes::random ? integer(1, 255) : integer(0, 1) ? 255 : 1);
    for (float& s : o.a_scale) s = uniform(0.001f, 0.1f);
    for (float& s : o.b_scale) s = std::bit_cast<float>(std::bit_cast<std::uint32_t>(uniform(0.001f, 0.1f)) & ~3u);
    return o;
  }

  void check_product(std::int64_t m, std::int64_t k64, std::int64_t n) {
    const Operands o = operands(m, k64, n);
    const std::int64_t ldc = 16 * n + 5, groups = groups_of(k64);
    std::vector<float> c(std::size_t(m * ldc), 777.f);
    kernels().gemm_i8(m, k64, o.rows(), o.panels(), n, c.data(), ldc);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t out = 0; out < ldc; ++out) {
        const float actual = c[std::size_t(i * ldc + out)];
        if (out >= 16 * n) {
          ASSERT_EQ(actual, 777.f) << "written past column " << out;
          continue;
        }
        double sum = 0, magnitude = 0;
        for (std::int64_t g = 0; g < groups; ++g) {
          std::int64_t dot = 0;
          for (std::int64_t j = g * group(); j < std::min(k64, (g + 1) * group()); ++j) {
            const std::size_t at = std::size_t(out / 16 * 16 * k64) + code_at(j, int(out % 16));
            dot += o.aq[std::size_t(i * k64 + j)] * (o.bq[at] - kZero);
          }
          const double term = double(o.a_scale[std::size_t(i * groups + g)]) *
                              o.b_scale[std::size_t((out / 16 * groups + g) * 16 + out % 16)] * double(dot);
          sum += term, magnitude += std::abs(term);
        }
        ASSERT_TRUE(close(actual, sum, double(groups + 2) * kEps * magnitude)) << "row " << i << " output " << out;
      }
    }
  }
};

// Rotating is six rounds of sums: 6 eps Σ|x|. Rounding is half a step, and what the product with 127 / max is off by.
TEST_P(GemmI8, ActivationsAreRotatedAndRounded) {
  for (const std::int64_t k : {1, 15, 17, 32, 63, 64, 65, 96, 127, 128, 129, 192, 255, 256, 257, 320, 600}) {
    SCOPED_TRACE(k);
    const Aligned<float> x = values(std::size_t(k));
    const Rotated expected = rotate(k, [&](std::int64_t i) { return double(x[std::size_t(i)]); });
    const std::int64_t groups = groups_of(padded(k));
    Aligned<std::int8_t> q(std::size_t(padded(k)));
    Aligned<float> scale{std::size_t(groups)};
    Aligned<std::int32_t> sum{std::size_t(groups)};
    kernels().rotate_i8(x.data(), k, q.data(), scale.data(), sum.data());
    for (std::int64_t g = 0; g < groups; ++g) {
      const double s = scale[std::size_t(g)], t = top(expected, g, group(), pairs_in_16_bits(GetParam()));
      double magnitude = 0;
      std::int64_t total = 0;
      for (std::int64_t i = g * group(); i < std::min(padded(k), (g + 1) * group()); ++i) {
        const std::size_t at = std::size_t(i);
        magnitude = std::max(magnitude, expected.magnitude[at]);
        ASSERT_TRUE(
            close(s * q[at], expected.value[at], s * (0.5 + 127 * 4 * kEps) + 6 * kEps * expected.magnitude[at]))
            << "element " << i;
        ASSERT_GE(q[at], -127);
        total += q[at];
      }
      EXPECT_TRUE(close(s * 127, t, 2 * kEps * t + (pairs_in_16_bits(GetParam()) ? 12 : 6) * kEps * magnitude));
      EXPECT_EQ(sum[std::size_t(g)], total);
    }
  }
}

TEST_P(GemmI8, WeightsOfEveryPackingAreRotatedAndRounded) {
  for (const Packing p : kPackings) {
    SCOPED_TRACE(name(p));
    const std::int64_t k = is_256(p) ? 512 : 160, groups = groups_of(padded(k));
    const Panel panel = make_panel(p, k, random);
    Aligned<std::uint8_t> q(std::size_t(padded(k) * 16));
    Aligned<float> scale(std::size_t(groups * 16));
    kernels().unpack_i8(p, panel.bytes.data(), k, q.data(), scale.data());
    for (int r = 0; r < 16; ++r) {
      const Rotated expected = rotate(k, [&](std::int64_t i) { return panel.w[std::size_t(i * 16 + r)] / 64.0; });
      for (std::int64_t i = 0; i < padded(k); ++i) {
        const std::size_t at = std::size_t(i);
        const float s = scale[std::size_t(i / group() * 16 + r)];
        ASSERT_EQ(std::bit_cast<std::uint32_t>(s) & 3, 0u);
        ASSERT_LE(s * (kZero - 1),
                  top(expected, i / group(), group()) * (1 + 0x1p-21) + 64 * kEps * expected.magnitude[at]);
        const int code = q[code_at(i, r)];
        ASSERT_TRUE(code >= 1 && code < 2 * kZero) << code;
        ASSERT_TRUE(close(double(s) * (code - kZero), expected.value[at],
                          s * (0.5 + kZero * 4 * kEps) + 6 * kEps * expected.magnitude[at]))
            << "input " << i << " row " << r;
      }
    }
  }
}

TEST_P(GemmI8, ZerosStayZeros) {
  Aligned<float> x(100), scale(64);
  Aligned<std::int8_t> q(128);
  Aligned<std::int32_t> sum(4);
  kernels().rotate_i8(x.data(), 100, q.data(), scale.data(), sum.data());
  EXPECT_EQ(scale[0], 0.f);
  EXPECT_EQ(sum[0], 0);
  const std::vector<std::uint8_t> weights(simd::panel_bytes(Packing::f32, 96));
  Aligned<std::uint8_t> codes(128 * 16);
  kernels().unpack_i8(Packing::f32, weights.data(), 96, codes.data(), scale.data());
  for (const float s : scale) EXPECT_EQ(s, 0.f);
  for (const std::uint8_t c : codes) EXPECT_EQ(c, kZero);
}

TEST_P(GemmI8, EveryTileShape) {
  for (int m = 1; m <= 15; ++m) {
    for (int n = 1; n <= 5; ++n) {
      SCOPED_TRACE(testing::Message() << m << " rows, " << n << " panels");
      check_product(m, 192, n);
    }
  }
  check_product(3, 64, 17);
  check_product(8, 256, 9);
}

TEST_P(GemmI8, BeyondOneBlockOfInputs) {
  check_product(3, 4096 + 64, 1);
  check_product(8, 8192 + 128, 2);
}

/// Activations that fill the range, to be rounded: all alike in one rotated pair (a single input), in every input, with
/// one sign, with both, and random.
TEST_P(GemmI8, PairsOfActivationsFitInto16Bits) {
  const std::int64_t k = 256, groups = groups_of(k);
  Aligned<std::int8_t> q(std::size_t{256});
  Aligned<float> scale{std::size_t(groups)};
  Aligned<std::int32_t> sum{std::size_t(groups)};
  for (int pattern = 0; pattern < 200; ++pattern) {
    Aligned<float> x = values(std::size_t(k));
    if (pattern < 128) {  // the rotated block is ±1 in 64 patterns, or a multiple of it
      std::fill(x.begin(), x.end(), 0.f);
      for (std::int64_t block = 0; block < k; block += kRotation)
        x[std::size_t(block + pattern % 64)] = pattern < 64 ? 1 : -3;
    }
    kernels().rotate_i8(x.data(), k, q.data(), scale.data(), sum.data());
    for (std::size_t i = 0; i < q.size(); i += 2) {
      ASSERT_TRUE(std::abs(q[i]) <= 127 && std::abs(q[i + 1]) <= 127);
      if (pairs_in_16_bits(GetParam())) {
        ASSERT_LE(std::abs(q[i] + q[i + 1]), 128) << "input " << i << " pattern " << pattern;
      }
    }
  }
}

/// Codes and activations at the ends of their ranges: any saturation in 16 bits would show, as every sum is an integer
/// that float32 holds exactly. Two neighbouring products reach 255 · 128 = 32640 < 2¹⁵ where the level adds them so.
TEST_P(GemmI8, SumsAreExactAtTheExtremes) {
  const std::int64_t k = 256;
  const auto fill = [&](std::int8_t* row, int even, int odd) {
    for (std::int64_t i = 0; i < k; ++i) row[i] = std::int8_t(i % 2 ? odd : even);
  };
  const bool pairs = pairs_in_16_bits(GetParam());
  const int low = pairs ? 1 : 127, half = pairs ? 64 : 127;
  const int rows[][2] = {{127, low}, {-127, -low}, {low, 127}, {half, half}, {-half, -half}, {127, -127}};
  for (int pattern = 0; pattern < 9; ++pattern) {
    Operands o = operands(2, k, 1, Codes::extreme);
    if (pattern > 2) {
      fill(o.aq.data(), rows[pattern - 3][0], rows[pattern - 3][1]);
      fill(o.aq.data() + k, -rows[pattern - 3][1], -rows[pattern - 3][0]);
      std::fill(o.sum.begin(), o.sum.end(), 0);
      for (std::int64_t i = 0; i < 2 * k; ++i) o.sum[std::size_t(i / group())] += o.aq[std::size_t(i)];
    }
    if (pattern != 1) std::fill(o.bq.begin(), o.bq.end(), std::uint8_t(pattern == 2 ? 1 : 255));
    std::fill(o.a_scale.begin(), o.a_scale.end(), 1.f), std::fill(o.b_scale.begin(), o.b_scale.end(), 1.f);
    std::vector<float> c(32);
    kernels().gemm_i8(2, k, o.rows(), o.panels(), 1, c.data(), 16);
    for (int i = 0; i < 2; ++i) {
      for (int r = 0; r < 16; ++r) {
        std::int64_t sum = 0;
        for (std::int64_t j = 0; j < k; ++j) sum += o.aq[std::size_t(i * k + j)] * (o.bq[code_at(j, r)] - kZero);
        ASSERT_EQ(c[std::size_t(i * 16 + r)], float(sum)) << "pattern " << pattern;
      }
    }
  }
}

TEST_P(GemmI8, RowsAreIndependent) {
  const std::int64_t k = 192, m = 15, n = 3, groups = groups_of(k);
  const Operands o = operands(m, k, n);
  std::vector<float> all(std::size_t(m * n * 16));
  kernels().gemm_i8(m, k, o.rows(), o.panels(), n, all.data(), n * 16);
  for (std::int64_t i = 0; i < m; ++i) {
    for (const std::int64_t rows : {std::int64_t(1), std::min<std::int64_t>(4, m - i)}) {
      std::vector<float> part(std::size_t(rows * n * 16));
      const simd::RotatedRows from{o.aq.data() + i * k, o.a_scale.data() + i * groups, o.sum.data() + i * groups};
      kernels().gemm_i8(rows, k, from, o.panels(), n, part.data(), n * 16);
      ASSERT_EQ(bits(part), bits(std::span(all).subspan(std::size_t(i * n * 16), part.size()))) << "row " << i;
    }
    std::vector<float> one(16);  // a panel alone
    const simd::RotatedPanels last{o.bq.data() + 2 * 16 * k, o.b_scale.data() + 2 * 16 * groups};
    const simd::RotatedRows from{o.aq.data() + i * k, o.a_scale.data() + i * groups, o.sum.data() + i * groups};
    kernels().gemm_i8(1, k, from, last, 1, one.data(), 16);
    ASSERT_EQ(bits(one), bits(std::span(all).subspan(std::size_t((i * n + 2) * 16), 16))) << "row " << i;
  }
}

FASTKV_EVERY_ISA(GemmI8);

}  // namespace
}  // namespace fastkv::test
