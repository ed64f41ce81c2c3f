// Products cut into blocks, parts, strips and chunks of inputs: bitwise what one panel and one row give.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "support/cases.hpp"
#include "backend/cpu/wide_linear.hpp"

namespace fastkv::cpu {
namespace {

class WideLinearTest : public testing::TestWithParam<Compute> {
 protected:
  /// A matrix of random float32 weights, packed, with a bias.
  void make(Linear& linear, std::int64_t rows, std::int64_t cols) {
    values_.emplace_back(random(rows * cols));
    const TensorView view{"w", DType::f32, rows, cols, reinterpret_cast<const std::byte*>(values_.back().data())};
    linear.w = PackedTensor(view, Placement(), {0, PackedTensor::panels_of(view)}, HugePages::off);
    linear.w.pack_panels(view, 0, linear.w.panels());
    linear.bias = random(rows);
  }
  std::vector<float> random(std::int64_t n) {
    std::vector<float> out(static_cast<std::size_t>(n));
    for (float& x : out) x = std::uniform_real_distribution<float>(-1, 1)(engine_);
    return out;
  }

  /// All outputs [rows, matrices · outputs] by items, as `threads` threads would share them.
  std::vector<float> by_items(const Arithmetic& arithmetic, std::initializer_list<const Linear*> matrices,
                              const RowTile& x, std::int64_t rows, int threads) {
    const WideLinear wide(arithmetic, matrices, {0, rows}, threads);
    const int count = int(matrices.size());
    const PackedTensor& w = (*matrices.begin())->w;
    const std::size_t outputs = std::size_t(w.rows());
    const WideSpace space{Buffer(std::size_t(count) * wide.shape().panel_bytes(arithmetic), "panels"),
                          Array<float>(std::size_t(wide.shape().held_rows * wide.shape().out_stride(count)), "sums"),
                          Array<float>(std::size_t(w.k32() * simd::kLanes), "panel")};
    RunControl control;
    StageWatch watch;
    watch.start();
    std::vector<float> all(std::size_t(rows) * std::size_t(count) * outputs);
    for (std::int64_t item = 0; item < wide.items(); ++item)
      wide.run(
          item, x, space, control, false, watch,
          [&](std::int64_t row, std::int64_t m, std::int64_t first, std::int64_t n, const float* y, std::int64_t ldy) {
            for (std::int64_t i = 0; i < m; ++i)
              for (int j = 0; j < count; ++j)
                std::memcpy(
                    &all[(std::size_t(row + i) * std::size_t(count) + std::size_t(j)) * outputs + std::size_t(first)],
                    y + i * ldy + j * wide.shape().panels * simd::kLanes, std::size_t(n) * sizeof(float));
          });
    EXPECT_GE(wide.items(), threads);
    return all;
  }

  static constexpr unsigned kSeed = 20261122;
  std::mt19937 engine_{kSeed};
  std::vector<std::vector<float>> values_;
};

TEST_P(WideLinearTest, IsBitwiseOneRowTimesOnePanel) {
  for (const simd::Isa isa : test::isas()) {
    const Arithmetic arithmetic{GetParam(), &simd::kernels(isa), nullptr, false};
    for (const std::int64_t k : {96, 2848}) {  // in one chunk; in several for floats
      SCOPED_TRACE(testing::Message() << simd::name(isa) << ", " << k << " inputs, seed " << kSeed);
      const std::int64_t rows = 131, outputs = 300;
      Linear a, b;
      make(a, outputs, k), make(b, outputs, k);
      const std::vector<float> x = random(rows * k);
      RowTile tile(arithmetic, LinearUse::prefill, rows, k);
      tile.prepare_all(x.data(), k, rows, k);
      const std::vector<float> one = by_items(arithmetic, {&a}, tile, rows, 1);
      const std::vector<float> both = by_items(arithmetic, {&a, &b}, tile, rows, 2);
      EXPECT_EQ(by_items(arithmetic, {&a}, tile, rows, 4), one);

      RowTile row(arithmetic, LinearUse::prefill, 1, k);
      const Array<float> scratch(std::size_t((k + 32) * simd::kLanes), "panel");
      std::vector<float> y(simd::kLanes);
      for (const std::int64_t i : {0, 95, 96, 111, 112, 130}) {
        row.prepare_all(x.data() + i * k, k, 1, k);
        for (const Linear* linear : {&a, &b})
          for (std::int64_t p = 0; p < linear->w.panels(); ++p) {
            row.multiply_panel(linear->w, p, scratch.data(), y.data());
            for (std::int64_t r = 0; r < simd::kLanes && p * simd::kLanes + r < outputs; ++r) {
              const std::size_t o = std::size_t(p * simd::kLanes + r), at = std::size_t(2 * i + (linear == &b));
              const float expected = y[std::size_t(r)] + linear->bias[o];
              ASSERT_EQ(both[at * std::size_t(outputs) + o], expected) << "row " << i << " output " << o;
              if (linear == &a) {
                ASSERT_EQ(one[std::size_t(i * outputs) + o], expected) << "row " << i << " output " << o;
              }
            }
          }
      }
    }
  }
}

TEST_P(WideLinearTest, KeptPanelsAndRowsPreparedInPiecesChangeNothing) {
  const Arithmetic arithmetic{GetParam(), &simd::kernels(simd::best_isa()), nullptr, false};
  const std::int64_t rows = 40, outputs = 300, k = 2848;
  Weights weights;
  weights.layers.resize(1);
  LayerWeights& l = weights.layers[0];
  for (Linear* linear : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) make(*linear, outputs, k);
  const std::vector<float> x = random(rows * k);
  RowTile tile(arithmetic, LinearUse::prefill, rows, k);
  tile.prepare_all(x.data(), k, rows, k);
  const std::vector<float> expected = by_items(arithmetic, {&l.gate, &l.up}, tile, rows, 2);

  RowTile pieces(arithmetic, LinearUse::prefill, rows, k);
  pieces.begin(rows, k);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t first = 0; first < k; first += 256)
      pieces.prepare(i, first, std::min<std::int64_t>(256, k - first), x.data() + i * k + first);
  EXPECT_EQ(by_items(arithmetic, {&l.gate, &l.up}, pieces, rows, 2), expected);

  ThreadTeam team(std::vector<std::vector<int>>(2));
  weights.keep_panels(arithmetic, team, HugePages::off);
  EXPECT_EQ(by_items(arithmetic, {&l.gate, &l.up}, tile, rows, 2), expected);
}

INSTANTIATE_TEST_SUITE_P(Arithmetics, WideLinearTest, testing::Values(Compute::f32, Compute::bf16, Compute::int8),
                         [](const auto& param) { return std::string(name(param.param)); });

}  // namespace
}  // namespace fastkv::cpu
