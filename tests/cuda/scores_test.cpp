// Column sums and last-row logits against sums in double: windows of few rows, all rows, masks that are not causal,
// weights, sizes at and around tiles.
#include "backend/cuda/kernels/scores.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "core/index_rules.hpp"
#include "cuda_test.hpp"
#include "random_rows.hpp"
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

struct Layer {
  cuda::AttentionShape shape;
  std::int64_t n, q_rows;
  std::vector<f16> q, k;  ///< [q_rows][H][d], [K][n][d]
};

Layer make_layer(int heads, int heads_kv, int d, std::int64_t n, std::int64_t q_rows, float growth = 0) {
  Layer layer{{heads, heads_kv, d, 1 / std::sqrt(float(d))}, n, q_rows, {}, {}};
  layer.q = random_rows<f16>(std::size_t(q_rows * heads * d), 1, 3);
  std::vector<float> k = random_floats(std::size_t(heads_kv * n * d), 2, 3);
  for (std::size_t i = 0; i < k.size(); ++i) k[i] *= 1 + growth * float(i / std::size_t(d) % std::size_t(n)) / float(n);
  layer.k = rounded<f16>(k);
  return layer;
}

std::vector<float> scores_of(const Layer& layer, const ColumnScores& wanted) {
  cuda::Stream stream;
  const auto q = on_device(stream, layer.q), k = on_device(stream, layer.k);
  const cuda::DeviceArray<std::byte> work(stream, cuda::column_scores_bytes(layer.shape, wanted.rows, layer.n), "work");
  const cuda::DeviceArray<float> out(stream, std::size_t(layer.shape.heads * (layer.n - wanted.drop)), "scores");
  cuda::column_scores(stream, layer.shape, q.data(), layer.q_rows, k.data(), layer.n, wanted, work.data(), out.data());
  return cuda::to_host(stream, out.data(), out.size());
}

/// z = q · k of query row `row`, head h, and Σ |terms|.
std::pair<double, double> product(const Layer& layer, std::int64_t row, int h, std::int64_t j) {
  const int d = layer.shape.d;
  const f16* q = layer.q.data() + (row * layer.shape.heads + h) * d;
  const f16* k = layer.k.data() + (h / layer.shape.group() * layer.n + j) * d;
  double sum = 0, magnitude = 0;
  for (int c = 0; c < d; ++c) sum += value(q[c]) * value(k[c]), magnitude += std::abs(value(q[c]) * value(k[c]));
  return {sum, magnitude};
}

void expect_right(const Layer& layer, const ColumnScores& wanted, const std::vector<float>& found) {
  const std::int64_t columns = layer.n - wanted.drop;
  std::vector<double> expected(found.size()), bounds(found.size());
  for (int h = 0; h < layer.shape.heads; ++h) {
    for (std::int64_t a = 0; a < wanted.rows; ++a) {
      std::vector<double> p;
      double top = -INFINITY, terms = 0, sum = 0;
      for (std::int64_t j = 0; j < seen_keys(layer.n, wanted.rows, wanted.causal_rows, a); ++j) {
        const auto [z, magnitude] = product(layer, layer.q_rows - wanted.rows + a, h, j);
        p.push_back(layer.shape.scale * z);
        top = std::max(top, p.back()), terms = std::max(terms, layer.shape.scale * magnitude);
      }
      for (double& x : p) sum += x = std::exp(x - top);
      // A score and the largest one: d products and sums (2 eps each where tensor cores truncate), their scale; the
      // exponential 4 eps, in numerator and sum; sums over keys, then over rows.
      const double relative =
          2 * (layer.shape.d + 6) * 2 * kEps * terms + 16 * kEps + double(layer.n + wanted.rows) * kEps;
      const double weight = row_weight(wanted.rows, wanted.last_weight, a) / sum;
      for (std::int64_t j = 0; j < std::min(columns, std::int64_t(p.size())); ++j) {
        const std::size_t at = std::size_t(h * columns + j);
        expected[at] += weight * p[std::size_t(j)], bounds[at] += weight * p[std::size_t(j)] * 2 * relative;
      }
    }
  }
  for (double& bound : bounds) bound += 1e-30;  // exponentials below 2^-126 are 0
  expect_close(found, expected, bounds);
}

TEST(CudaScores, AgreeWithDouble) {
  struct Case {
    int heads, heads_kv, d;
    std::int64_t n, kept;  ///< kept: query rows that are there
    ColumnScores wanted;
  };
  for (const Case& c : {Case{4, 1, 128, 700, 8, {8, 8}},            // a window, several chunks of keys
                        Case{2, 2, 64, 64, 8, {8, 0}},              // nothing dropped
                        Case{8, 2, 64, 300, 40, {32, 32}},          // fewer rows than are kept
                        Case{3, 1, 80, 129, 1, {1, 1}},             // one row
                        Case{1, 1, 8, 257, 17, {17, 17, 1.2}},      // weights that grow
                        Case{6, 2, 96, 200, 7, {7, 6}},             //
                        Case{4, 2, 16, 300, 300, {300, 1}},         // all rows
                        Case{2, 1, 128, 260, 260, {260, 8, 1, 8}},  // all rows, of which the last are causal
                        Case{3, 1, 24, 150, 150, {150, 0, 1, 0}},   // none is
                        Case{5, 1, 64, 190, 130, {129, 129, 1.2}},  // more rows than a block's
                        Case{1, 1, 64, 1, 1, {1, 0}}, Case{1, 1, 64, 65, 2, {2, 1}}}) {
    SCOPED_TRACE(testing::Message() << "heads " << c.heads << "/" << c.heads_kv << " d " << c.d << " n " << c.n
                                    << " rows " << c.wanted.rows << " drop " << c.wanted.drop << " causal "
                                    << c.wanted.causal_rows);
    const Layer layer = make_layer(c.heads, c.heads_kv, c.d, c.n, c.kept);
    expect_right(layer, c.wanted, scores_of(layer, c.wanted));
  }
}

TEST(CudaScores, TheMaximumMayMoveFar) {
  for (const float growth : {20.f, -0.99f}) {
    for (const std::int64_t rows : {8, 200}) {
      SCOPED_TRACE(testing::Message() << growth << " " << rows);
      const Layer layer = make_layer(2, 1, 64, 600, rows, growth);
      const ColumnScores wanted{rows, 8};
      expect_right(layer, wanted, scores_of(layer, wanted));
    }
  }
}

TEST(CudaScores, EverySchedule) {
  for (const std::int64_t rows : {8, 150}) {
    const Layer layer = make_layer(4, 2, 64, 300, rows);
    std::vector<float> first;
    for_each_schedule([&] {
      const std::vector<float> out = scores_of(layer, {rows, 8});
      if (first.empty()) first = out;
      EXPECT_TRUE(same_bits(out, first)) << rows;
    });
  }
}

TEST(CudaScores, LastRowLogits) {
  for (const auto& [heads, heads_kv, d, n] :
       {std::tuple{1, 1, 8, 1}, {4, 2, 64, 127}, {3, 1, 80, 128}, {2, 1, 96, 129}, {2, 2, 128, 300}}) {
    SCOPED_TRACE(testing::Message() << d << " " << n);
    const Layer layer = make_layer(heads, heads_kv, d, n, 1);
    cuda::Stream stream;
    const auto q = on_device(stream, layer.q), k = on_device(stream, layer.k);
    const cuda::DeviceArray<float> out(stream, std::size_t(heads * n), "logits");
    cuda::last_row_logits(stream, layer.shape, q.data(), k.data(), n, out.data());
    std::vector<double> expected, bounds;
    for (int h = 0; h < heads; ++h) {
      for (std::int64_t j = 0; j < n; ++j) {
        const auto [z, magnitude] = product(layer, 0, h, j);
        expected.push_back(z), bounds.push_back((d / 8 + 12) * kEps * magnitude);
      }
    }
    expect_close(cuda::to_host(stream, out.data(), out.size()), expected, bounds);
  }
}

}  // namespace
}  // namespace fastkv::test
