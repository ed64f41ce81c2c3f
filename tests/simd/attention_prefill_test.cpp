// Attention of prefill against a softmax in double: every arithmetic, head size and group, limits at and around blocks.
#include "simd/support/kernel_test.hpp"
#include "simd/support/narrow.hpp"

namespace fastkv::test {
namespace {

using simd::kKeyBlock;

/// Queries, keys and values of one key/value head, packed for both arithmetics.
struct Head {
  int n, d, group;
  std::int64_t m;
  Aligned<float> q, k, v;  ///< [m, G·d], [n, d], [n, d]
  std::vector<std::int32_t> limits;
  float scale = 0;

  std::int64_t padded() const { return (n + kKeyBlock - 1) / kKeyBlock * kKeyBlock; }
};

class PrefillAttention : public KernelTest {
 protected:
  Head make_head(int n, int d, int group, std::vector<std::int32_t> limits, float growth = 0) {
    const std::int64_t m = std::int64_t(limits.size());
    Head head{n,
              d,
              group,
              m,
              values(std::size_t(m * group * d)),
              values(std::size_t(n * d)),
              values(std::size_t(n * d)),
              std::move(limits),
              1 / std::sqrt(float(d))};
    for (float& x : head.q) x /= 2;
    // scores that rise (or fall) with the key, so that the maximum moves from block to block
    for (int j = 0; j < n; ++j)
      for (int i = 0; i < d; ++i) head.k[std::size_t(j * d + i)] *= 1 + growth * float(j) / float(n);
    return head;
  }

  template <class Element>
  std::vector<float> attend(const Head& head, std::int64_t first, std::int64_t m) {
    constexpr bool kNarrow = sizeof(Element) == 2;
    const std::int64_t d16 = (head.d + 15) / 16 * 16, dk = kNarrow ? (head.d + 31) / 32 * 32 : head.d;
    Aligned<Element> keys(std::size_t(head.padded() * dk)), v(std::size_t(head.padded() * d16));
    for (int j = 0; j < head.padded(); j += 16) {
      const int lanes = std::clamp(head.n - j, 0, 16);
      const float* from = head.k.data() + (lanes ? j * head.d : 0);
      if constexpr (kNarrow)
        kernels().pack_keys_bf16(from, head.d, lanes, head.d, keys.data() + j * dk);
      else
        kernels().pack_keys_f32(from, head.d, lanes, head.d, keys.data() + j * dk);
    }
    for (int j = 0; j < head.n; j += kKeyBlock) {
      const int rows = std::min(kKeyBlock, head.n - j);
      const float* from = head.v.data() + j * head.d;
      if constexpr (kNarrow)
        kernels().pack_values_bf16(from, head.d, rows, kKeyBlock, head.d, v.data() + j * d16);
      else
        kernels().pack_values_f32(from, head.d, rows, kKeyBlock, head.d, v.data() + j * d16);
    }
    const std::int64_t ld = head.group * head.d;
    Aligned<std::uint8_t> work(simd::attention_work_bytes(m * head.group, head.d));
    std::fill(work.begin(), work.end(), std::uint8_t(0xcb));
    std::vector<float> out(std::size_t(m * (ld + 3)), 777.f);
    const simd::AttentionRows rows{head.q.data() + first * ld,
                                   ld,
                                   head.limits.data() + first,
                                   m,
                                   head.group,
                                   head.d,
                                   head.scale,
                                   keys.data(),
                                   v.data(),
                                   work.data(),
                                   out.data(),
                                   ld + 3};
    kNarrow ? kernels().attend_bf16(rows) : kernels().attend_f32(rows);
    std::vector<float> packed;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t c = 0; c < ld + 3; ++c) {
        const float x = out[std::size_t(i * (ld + 3) + c)];
        if (c < ld) {
          packed.push_back(x);
        } else {
          EXPECT_EQ(x, 777.f) << "written past row " << i;
        }
      }
    }
    return packed;
  }

  /// Every row against double, on the inputs as the arithmetic rounds them.
  template <class Element>
  void compare(const Head& head) {
    constexpr bool kNarrow = sizeof(Element) == 2;
    const float factor = head.scale * 1.44269504f;
    const auto rounded = [](float x) { return kNarrow ? double(bf16_value(to_bf16(x))) : double(x); };
    const std::vector<float> found = attend<Element>(head, 0, head.m);
    std::vector<double> expected, bounds;
    for (std::int64_t i = 0; i < head.m; ++i) {
      for (int g = 0; g < head.group; ++g) {
        const float* q = head.q.data() + (i * head.group + g) * head.d;
        const int n = head.limits[std::size_t(i)];
        std::vector<double> p;
        double top = -INFINITY, magnitude = 0;
        for (int j = 0; j < n; ++j) {
          double s = 0, terms = 0;
          for (int c = 0; c < head.d; ++c) {
            const double x = (kNarrow ? rounded(q[c] * factor) : double(q[c]) * head.scale * std::log2(std::exp(1.0))) *
                             rounded(head.k[std::size_t(j * head.d + c)]);
            s += x, terms += std::abs(x);
          }
          p.push_back(s), top = std::max(top, s), magnitude = std::max(magnitude, terms);
        }
        double sum = 0;
        for (double& x : p) sum += x = std::exp2(x - top);
        // A probability is off by the rounding of its score (d + 4 operations, a reference of the same size), and by
        // the exponential: 2^-7 in bfloat16 (rounding 2^-8, a step of 2^-7 in the exponent 2^-8.5, the mantissa's table
        // 2^-8.7), else a few eps. Sums and weighted sums take n + 8 more. Errors reach numerator and denominator.
        const double relative = (head.d + 8) * kEps * 2 * magnitude + (kNarrow ? 0x1p-7 : 8 * kEps) + (n + 8) * kEps;
        for (int c = 0; c < head.d; ++c) {
          double o = 0, weight = 0;
          for (int j = 0; j < n; ++j) {
            const double v = rounded(head.v[std::size_t(j * head.d + c)]);
            o += p[std::size_t(j)] * v, weight += p[std::size_t(j)] * std::abs(v);
          }
          expected.push_back(o / sum), bounds.push_back(2 * relative * weight / sum);
        }
      }
    }
    expect_close(found, expected, bounds);
  }

  /// The last m of n rows, as prefill takes them.
  static std::vector<std::int32_t> last_rows(int n, int m) {
    std::vector<std::int32_t> limits;
    for (int i = n - m; i < n; ++i) limits.push_back(i + 1);
    return limits;
  }
};

TEST_P(PrefillAttention, AgreesWithDouble) {
  for (const int d : {8, 64, 80, 96, 128, 256}) {
    for (const auto& [n, m, group] :
         {std::tuple{1, 1, 1}, {2, 2, 8}, {33, 33, 1}, {65, 9, 4}, {130, 5, 3}, {257, 17, 2}}) {
      SCOPED_TRACE(testing::Message() << "d " << d << " n " << n << " m " << m << " group " << group);
      const Head head = make_head(n, d, group, last_rows(n, m));
      compare<float>(head);
      compare<std::uint16_t>(head);
    }
  }
}

TEST_P(PrefillAttention, GatheredRowsAndSeveralPasses) {
  const Head head = make_head(1153, 32, 2, {1, 31, 32, 33, 64, 127, 128, 129, 500, 1024, 1025, 1100, 1153});
  compare<float>(head);
  compare<std::uint16_t>(head);
}

TEST_P(PrefillAttention, TheMaximumMayMoveFar) {
  for (const float growth : {40.f, -0.99f}) {
    SCOPED_TRACE(growth);
    const Head head = make_head(400, 64, 2, last_rows(400, 20), growth);
    compare<float>(head);
    compare<std::uint16_t>(head);
  }
}

TEST_P(PrefillAttention, ARowDependsOnItselfAlone) {
  std::vector<std::int32_t> limits;
  for (int i = 0; i < 45; ++i) limits.push_back(integer(1, 300));
  const Head head = make_head(300, 64, 3, limits, 20);
  const auto check = [&](auto element) {
    using Element = decltype(element);
    const std::vector<float> all = attend<Element>(head, 0, head.m);
    const std::size_t width = std::size_t(head.group * head.d);
    for (std::int64_t i = 0; i < head.m; ++i) {
      const std::vector<float> one = attend<Element>(head, i, 1);
      ASSERT_EQ(bits(one), bits(std::vector<float>(all.begin() + std::ptrdiff_t(std::size_t(i) * width),
                                                   all.begin() + std::ptrdiff_t((std::size_t(i) + 1) * width))))
          << "row " << i << ", element of " << sizeof(Element) << " bytes";
    }
  };
  check(float{});
  check(std::uint16_t{});
}

TEST_P(PrefillAttention, LaterKeysAreNotSeen) {
  for (const int limit : {1, 16, 37, 64, 100, 128}) {
    Head head = make_head(200, 64, 2, {limit});
    const auto narrow = bits(attend<std::uint16_t>(head, 0, 1)), wide = bits(attend<float>(head, 0, 1));
    for (int j = limit; j < head.n; ++j)
      for (int i = 0; i < head.d; ++i)
        head.k[std::size_t(j * head.d + i)] = 1e4f, head.v[std::size_t(j * head.d + i)] = -1e9f;
    EXPECT_EQ(bits(attend<std::uint16_t>(head, 0, 1)), narrow) << limit;
    EXPECT_EQ(bits(attend<float>(head, 0, 1)), wide) << limit;
  }
}

FASTKV_EVERY_ISA(PrefillAttention);

}  // namespace
}  // namespace fastkv::test
