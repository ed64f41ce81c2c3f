// Attention of prompt rows against a softmax in double: every head size and group, sizes at and around tiles, gathered
// rows bitwise as among all rows.
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "backend/cuda/kernels/attention.hpp"
#include "cuda_test.hpp"
#include "random_rows.hpp"
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

struct Layer {
  cuda::AttentionShape shape;
  std::int64_t n;
  std::vector<f16> q, k, v;  ///< [n][H][d], [K][n][d] each

  std::int64_t q_row() const { return std::int64_t(shape.heads) * shape.d; }
};

/// `growth`: keys grow (or shrink) by so much towards the end, so that a row's maximum moves from tile to tile.
Layer make_layer(int heads, int heads_kv, int d, std::int64_t n, float growth = 0) {
  Layer layer{{heads, heads_kv, d, 1 / std::sqrt(float(d))}, n, {}, {}, {}};
  layer.q = random_rows<f16>(std::size_t(n * layer.q_row()), 1, 2);
  std::vector<float> k = random_floats(std::size_t(heads_kv * n * d), 2, 2);
  for (std::size_t i = 0; i < k.size(); ++i) k[i] *= 1 + growth * float(i / std::size_t(d) % std::size_t(n)) / float(n);
  layer.k = rounded<f16>(k);
  layer.v = random_rows<f16>(k.size(), 3);
  return layer;
}

/// out [m][H][d] of the rows `rows`, or first .. first + m.
std::vector<bf16> attend(const Layer& layer, const std::vector<std::int32_t>& rows, std::int64_t first,
                         std::int64_t m) {
  std::vector<f16> q;
  for (std::int64_t i = 0; i < m; ++i) {
    const auto from = layer.q.begin() + (rows.empty() ? first + i : rows[std::size_t(i)]) * layer.q_row();
    q.insert(q.end(), from, from + layer.q_row());
  }
  cuda::Stream stream;
  const auto q_device = on_device(stream, q), k = on_device(stream, layer.k), v = on_device(stream, layer.v);
  const auto rows_device = on_device(stream, rows);
  const cuda::DeviceArray<bf16> out(stream, q.size(), "out");
  cuda::attention_prefill(stream, layer.shape, q_device.data(), rows.empty() ? nullptr : rows_device.data(), first, m,
                          k.data(), v.data(), layer.n, out.data());
  return cuda::to_host(stream, out.data(), out.size());
}

/// Every value of row `row` (out [H][d]) against double, on the inputs as they are.
void expect_row(const Layer& layer, std::int64_t row, const bf16* out) {
  const auto& [heads, heads_kv, d, scale] = layer.shape;
  std::vector<double> found, expected, bounds;
  for (int h = 0; h < heads; ++h) {
    const f16* q = layer.q.data() + row * layer.q_row() + h * d;
    const std::int64_t head = std::int64_t(h / layer.shape.group()) * layer.n * d;
    std::vector<double> p;
    double top = -INFINITY, terms = 0, sum = 0;
    for (std::int64_t j = 0; j <= row; ++j) {
      double s = 0, magnitude = 0;
      for (int c = 0; c < d; ++c) {
        const double x = scale * value(q[c]) * value(layer.k[std::size_t(head + j * d + c)]);
        s += x, magnitude += std::abs(x);
      }
      p.push_back(s), top = std::max(top, s), terms = std::max(terms, magnitude);
    }
    for (double& x : p) sum += x = std::exp(x - top);
    // A probability is off by its score: d + 4 operations of float32 on terms of that magnitude (tensor cores may
    // truncate: 2 eps each), the largest score's part of the same size; 4 eps for the exponential. Sums take n more.
    // Probabilities are rounded to float16 (2^-11, and 2^-39 of the largest) before they meet the values, the result to
    // bfloat16 (2^-8).
    const double relative = 2 * (d + 4) * 2 * kEps * terms + 4 * kEps + 2 * double(row + 16) * kEps;
    for (int c = 0; c < d; ++c) {
      double o = 0, weight = 0, values = 0;
      for (std::int64_t j = 0; j <= row; ++j) {
        const double x = value(layer.v[std::size_t(head + j * d + c)]);
        o += p[std::size_t(j)] * x, weight += p[std::size_t(j)] * std::abs(x), values += std::abs(x);
      }
      found.push_back(value(out[h * d + c]));
      expected.push_back(o / sum);
      bounds.push_back(((2 * relative + 0x1p-11) * weight + 0x1p-39 * values) / sum + 0x1p-8 * std::abs(o / sum));
    }
  }
  expect_close(found, expected, bounds);
}

TEST(CudaAttentionPrefill, AgreesWithDouble) {
  for (const auto& [heads, heads_kv, d, n, m] : {std::tuple{1, 1, 8, 1, 1},
                                                 {2, 1, 16, 129, 129},
                                                 {3, 1, 24, 65, 17},
                                                 {2, 2, 64, 200, 200},
                                                 {9, 3, 64, 64, 15},
                                                 {2, 1, 72, 130, 130},
                                                 {1, 1, 80, 63, 16},
                                                 {4, 1, 96, 128, 127},
                                                 {5, 1, 120, 66, 2},
                                                 {4, 2, 128, 257, 130}}) {
    SCOPED_TRACE(testing::Message() << "heads " << heads << "/" << heads_kv << " d " << d << " n " << n << " m " << m);
    const Layer layer = make_layer(heads, heads_kv, d, n);
    const std::vector<bf16> out = attend(layer, {}, n - m, m);
    for (std::int64_t i = 0; i < m; ++i) expect_row(layer, n - m + i, out.data() + i * layer.q_row());
  }
}

TEST(CudaAttentionPrefill, TheMaximumMayMoveFar) {
  for (const float growth : {30.f, -0.99f}) {
    SCOPED_TRACE(growth);
    const Layer layer = make_layer(2, 1, 64, 300, growth);
    const std::vector<bf16> out = attend(layer, {}, 0, 300);
    for (const std::int64_t row : {0, 1, 63, 64, 65, 127, 128, 200, 299})
      expect_row(layer, row, out.data() + row * layer.q_row());
  }
}

// Shortcuts S1 and S2 rest on this.
TEST(CudaAttentionPrefill, ARowDependsOnItsOwnKeysAlone) {
  for (const int d : {64, 128}) {
    const Layer layer = make_layer(2, 1, d, 330, 20);
    const std::vector<bf16> all = attend(layer, {}, 0, layer.n);
    const auto expect_rows = [&](const std::vector<std::int32_t>& rows, std::int64_t first, std::int64_t m) {
      const std::vector<bf16> some = attend(layer, rows, first, m);
      for (std::int64_t i = 0; i < m; ++i) {
        const std::int64_t row = rows.empty() ? first + i : rows[std::size_t(i)];
        ASSERT_EQ(std::memcmp(some.data() + i * layer.q_row(), all.data() + row * layer.q_row(),
                              std::size_t(layer.q_row()) * sizeof(bf16)),
                  0)
            << "d " << d << " row " << row << " as number " << i << " of " << m;
      }
    };
    expect_rows({}, 329, 1);
    expect_rows({}, 100, 77);
    std::vector<std::int32_t> gathered = {0, 1, 5, 62, 63, 64, 65, 66, 127, 128, 129, 130, 191, 192, 193, 256, 329};
    expect_rows(gathered, 0, std::int64_t(gathered.size()));
    gathered.clear();
    for (std::int32_t row = 1; row < 330; row += 2) gathered.push_back(row);
    expect_rows(gathered, 0, std::int64_t(gathered.size()));
  }
}

TEST(CudaAttentionPrefill, LaterKeysAreNotSeen) {
  for (const std::int64_t row : {0, 15, 36, 63, 64, 99}) {
    Layer layer = make_layer(2, 2, 80, 150);
    const std::vector<bf16> before = attend(layer, {}, row, 1);
    for (int head = 0; head < 2; ++head) {
      for (std::int64_t i = (row + 1) * 80; i < layer.n * 80; ++i) {
        layer.k[std::size_t(head * layer.n * 80 + i)] = f16(1e4f);
        layer.v[std::size_t(head * layer.n * 80 + i)] = f16(-6e4f);
      }
    }
    EXPECT_TRUE(same_bits(attend(layer, {}, row, 1), before)) << row;
  }
}

TEST(CudaAttentionPrefill, EverySchedule) {
  for (const int d : {16, 96, 128}) {
    const Layer layer = make_layer(2, 1, d, 200);
    std::vector<bf16> first;
    for_each_schedule([&] {
      const std::vector<bf16> out = attend(layer, {}, 0, layer.n);
      if (first.empty()) first = out;
      EXPECT_TRUE(same_bits(out, first)) << d;
    });
  }
}

}  // namespace
}  // namespace fastkv::test
