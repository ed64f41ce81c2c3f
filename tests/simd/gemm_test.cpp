// Matrix products and single-row products against sums in double, with bounds derived from the order of operations.
#include "simd/support/panels.hpp"

namespace fastkv::test {
namespace {

using simd::Packing;

class Gemm : public KernelTest {};

/// Panels one behind the other, as a tensor holds them.
Aligned<std::uint8_t> consecutive(const std::vector<Panel>& panels) {
  const std::size_t bytes = panels[0].bytes.size();
  Aligned<std::uint8_t> all(panels.size() * bytes);
  for (std::size_t p = 0; p < panels.size(); ++p) {
    std::copy(panels[p].bytes.begin(), panels[p].bytes.end(), all.begin() + std::ptrdiff_t(p * bytes));
  }
  return all;
}
std::vector<Panel> make_panels(Packing packing, std::int64_t k, int n, std::mt19937& random,
                               Codes codes = Codes::random) {
  std::vector<Panel> panels;
  for (int p = 0; p < n; ++p) panels.push_back(make_panel(packing, k, random, codes));
  return panels;
}

/// Both halves of consecutive panels side by side; what is read next lies far from them.
simd::PanelRuns two_runs(const Aligned<std::uint8_t>& all, const std::vector<Panel>& panels) {
  return {
      {all.data(), all.data() + all.size() / 2}, {panels[0].bytes.data(), all.data()}, std::int64_t(panels.size() / 2)};
}

TEST_P(Gemm, GemvInt8OfEveryPacking) {
  for (const Packing p : kPackings) {
    if (is_float(p)) continue;
    for (const Codes codes : {Codes::random, Codes::extreme}) {
      SCOPED_TRACE(name(p));
      const std::int64_t k = some_k(p), count = 6;  // two runs of three
      const std::vector<Panel> panels = make_panels(p, k, int(count), random, codes);
      const Activations a = make_activations(1, k, random, codes);
      std::vector<float> actual(std::size_t(16 * count));
      const Aligned<std::uint8_t> all = consecutive(panels);
      kernels().gemv_i8(p, two_runs(all, panels), k, a.rows(), actual.data());
      for (std::size_t o = 0; o < actual.size(); ++o) {
        const Panel& panel = panels[o / 16];
        double sum = 0, magnitude = 0;
        for (std::int64_t j = 0; j < k; ++j) {
          const double x = double(a.scale[std::size_t(j / 32)]) * a.q[std::size_t(j)];
          const std::size_t at = std::size_t(j) * 16 + o % 16;
          const double scaled = double(panel.scale[at]) * (panel.q[at] - simd::info(p).zero);
          sum += x * (scaled - panel.min[at]);
          magnitude += std::abs(x) * (std::abs(scaled) + std::abs(panel.min[at]));
        }
        EXPECT_TRUE(close(actual[o], sum, (double(k) / 16 + 4) * kEps * magnitude)) << "output " << o;
      }
      for (std::int64_t i = 0; i < count; ++i) {  // the panels read beside it make no difference
        std::vector<float> alone(16);
        kernels().gemv_i8(p, {{panels[std::size_t(i)].bytes.data()}, {}, 1}, k, a.rows(), alone.data());
        EXPECT_EQ(bits(alone), bits(std::span(actual).subspan(std::size_t(16 * i), 16))) << "panel " << i;
      }
    }
  }
}

/// An odd number of blocks that makes a panel larger than an L1 cache of 32 KiB, from where on it is not read alone.
std::int64_t large_k(Packing p) {
  std::int64_t k = some_k(p);
  while (simd::panel_bytes(p, k) < 32u << 10) k += 2 * simd::info(p).block;
  return k;
}

// Which run is ahead of the other, and by how much, depends on where they lie in their pages, and whether they or their
// halves are read side by side on the CPU: no output does.
TEST_P(Gemm, GemvReadsRunsWhereverTheyLieInTheirPages) {
  constexpr std::size_t kPage = 4096;
  const std::int64_t each = 5;  // no half of them is as long as the other
  for (const Packing p : kPackings) {
    for (const std::int64_t k : {std::int64_t(768), large_k(p)}) {
      SCOPED_TRACE(name(p));
      const std::vector<Panel> panels = make_panels(p, k, int(2 * each), random);
      const Activations a = make_activations(1, k, random);
      const Aligned<float> x = values(std::size_t(k));
      const auto multiply = [&](const simd::PanelRuns& runs, float* out) {
        is_float(p) ? kernels().gemv_f32(p, runs, k, x.data(), out) : kernels().gemv_i8(p, runs, k, a.rows(), out);
      };
      std::vector<float> alone(std::size_t(16 * 2 * each));
      for (std::size_t i = 0; i < panels.size(); ++i)
        multiply({{panels[i].bytes.data()}, {}, 1}, alone.data() + 16 * i);
      const std::size_t bytes = panels[0].bytes.size(), run = (std::size_t(each) * bytes / kPage + 2) * kPage;
      for (const std::size_t offset : {0u, 64u, 1056u, 2048u, 3104u, 4032u}) {
        std::vector<std::uint8_t> memory(2 * run + kPage);
        std::uint8_t* const page = memory.data() + (kPage - std::uintptr_t(memory.data()) % kPage) % kPage;
        std::uint8_t* const at[2] = {page, page + run + offset};
        for (std::size_t i = 0; i < panels.size(); ++i)
          std::copy(panels[i].bytes.begin(), panels[i].bytes.end(), at[i / each] + i % each * bytes);
        for (const bool fetching : {false, true}) {
          const FetchesAhead scope(fetching);
          std::vector<float> actual(alone.size());
          multiply({{at[0], at[1]}, {at[1], at[0]}, each}, actual.data());
          EXPECT_EQ(bits(alone), bits(actual)) << k << " inputs, offset " << offset << (fetching ? ", fetching" : "");
          std::fill(actual.begin(), actual.end(), 0.0f);
          for (const int r : {0, 1}) multiply({{at[r]}, {}, each}, actual.data() + 16 * r * each);
          EXPECT_EQ(bits(alone), bits(actual)) << k << " inputs, run by run" << (fetching ? ", fetching" : "");
        }
      }
    }
  }
}

TEST_P(Gemm, GemvFloat32OfEveryPacking) {
  for (const Packing p : kPackings) {
    SCOPED_TRACE(name(p));
    const std::int64_t k = some_k(p), count = 6;  // two runs of three
    const std::vector<Panel> panels = make_panels(p, k, int(count), random);
    const Aligned<std::uint8_t> all = consecutive(panels);
    const Aligned<float> x = values(std::size_t(k));
    std::vector<float> actual(std::size_t(16 * count));
    kernels().gemv_f32(p, two_runs(all, panels), k, x.data(), actual.data());
    for (std::size_t o = 0; o < actual.size(); ++o) {
      const Panel& panel = panels[o / 16];
      double sum = 0, magnitude = 0;
      for (std::int64_t j = 0; j < k; ++j) {
        const double term = double(x[std::size_t(j)]) * panel.w[std::size_t(j) * 16 + o % 16];
        sum += term, magnitude += std::abs(term);
      }
      EXPECT_TRUE(close(actual[o], sum, double(k + 1) * kEps * magnitude)) << "output " << o;
    }
    for (std::int64_t i = 0; i < count; ++i) {  // the panels read beside it make no difference
      std::vector<float> alone(16);
      kernels().gemv_f32(p, {{panels[std::size_t(i)].bytes.data()}, {}, 1}, k, x.data(), alone.data());
      EXPECT_EQ(bits(alone), bits(std::span(actual).subspan(std::size_t(16 * i), 16))) << "panel " << i;
    }
  }
}

TEST_P(Gemm, Float32) {
  for (const int m : {1, 2, 5, 6, 7, 11, 12, 13, 25}) {
    for (const int n : {1, 2, 3, 4, 5}) {
      for (const std::int64_t k : {1, 15, 33}) {
        for (const bool accumulate : {false, true}) {
          const std::int64_t lda = k + 3, ldc = 16 * n + 1;
          const Aligned<float> a = values(std::size_t((m - 1) * lda + k)), b = values(std::size_t(n * k * 16));
          const Aligned<float> before = values(std::size_t(m * ldc));
          std::vector<float> c(before.begin(), before.end());
          kernels().gemm_f32(m, k, a.data(), lda, b.data(), n, c.data(), ldc, accumulate);
          for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t o = 0; o < ldc; ++o) {
              const std::size_t at = std::size_t(i * ldc + o);
              if (o == 16 * n) {
                ASSERT_EQ(c[at], before[at]);
                continue;
              }
              double sum = accumulate ? before[at] : 0, magnitude = std::abs(sum);
              for (std::int64_t j = 0; j < k; ++j) {
                const double term =
                    double(a[std::size_t(i * lda + j)]) * b[std::size_t((o / 16 * k + j) * 16 + o % 16)];
                sum += term, magnitude += std::abs(term);
              }
              ASSERT_TRUE(close(c[at], sum, double(k + 1) * kEps * magnitude)) << m << " x " << n << " x " << k;
            }
          }
        }
      }
    }
  }
}

TEST_P(Gemm, Bfloat16) {
  for (const int m : {1, 2, 5, 6, 7, 11, 12, 13, 16, 17, 25, 31, 32, 33, 48, 65}) {
    for (const int n : {1, 2, 3, 4, 5}) {
      for (const std::int64_t k : {2, 16, 32, 34, 80, 546}) {
        if (k > 512 && m % 16 != 1) continue;  // more inputs than a kernel takes at once
        for (const bool accumulate : {false, true}) {
          const std::int64_t lda = k + 2, ldc = 16 * n + 1;
          Aligned<std::uint16_t> a(std::size_t((m - 1) * lda + k)), b(std::size_t(n * k * 16));
          for (std::uint16_t& x : a) x = to_bf16(uniform(-1, 1));
          for (std::uint16_t& x : b) x = to_bf16(uniform(-1, 1));
          const Aligned<float> before = values(std::size_t(m * ldc));
          std::vector<float> c(before.begin(), before.end());
          kernels().gemm_bf16(m, k, a.data(), lda, b.data(), n, c.data(), ldc, accumulate);
          for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t o = 0; o < ldc; ++o) {
              const std::size_t at = std::size_t(i * ldc + o);
              if (o == 16 * n) {
                ASSERT_EQ(c[at], before[at]);
                continue;
              }
              double sum = accumulate ? before[at] : 0, magnitude = std::abs(sum);
              for (std::int64_t j = 0; j < k; ++j) {
                const std::size_t weight = std::size_t((o / 16 * (k / 2) + j / 2) * 32 + o % 16 * 2 + j % 2);
                const double term = double(bf16_value(a[std::size_t(i * lda + j)])) * bf16_value(b[weight]);
                sum += term, magnitude += std::abs(term);
              }
              ASSERT_TRUE(close(c[at], sum, double(k + 2) * kEps * magnitude)) << m << " x " << n << " x " << k;
            }
          }
        }
      }
    }
  }
}

TEST_P(Gemm, FloatRowsAreIndependent) {
  const std::int64_t m = 67, k = 578, n = 3;
  const Aligned<float> a = values(std::size_t(m * k)), b = values(std::size_t(n * k * 16));
  std::vector<float> all(std::size_t(m * n * 16));
  kernels().gemm_f32(m, k, a.data(), k, b.data(), n, all.data(), n * 16, false);
  Aligned<std::uint16_t> a16(a.size()), b16(b.size());
  for (std::size_t i = 0; i < a.size(); ++i) a16[i] = to_bf16(a[i]);
  for (std::size_t i = 0; i < b.size(); ++i) b16[i] = to_bf16(b[i]);
  std::vector<float> all16(all.size());
  kernels().gemm_bf16(m, k, a16.data(), k, b16.data(), n, all16.data(), n * 16, false);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t p = 0; p < n; ++p) {
      std::vector<float> one(16), one16(16);
      kernels().gemm_f32(1, k, a.data() + i * k, k, b.data() + p * k * 16, 1, one.data(), 16, false);
      kernels().gemm_bf16(1, k, a16.data() + i * k, k, b16.data() + p * k * 16, 1, one16.data(), 16, false);
      const std::size_t at = std::size_t((i * n + p) * 16);
      ASSERT_EQ(bits(one), bits(std::span(all).subspan(at, 16))) << "row " << i;
      ASSERT_EQ(bits(one16), bits(std::span(all16).subspan(at, 16))) << "row " << i;
    }
  }
}

FASTKV_EVERY_ISA(Gemm);

}  // namespace
}  // namespace fastkv::test
