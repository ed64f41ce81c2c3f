// Pooling, head sums, top-k and coverage kernels against their definitions on plain vectors.
#include "backend/cuda/kernels/selection.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "backend/cuda/device.hpp"
#include "cuda_test.hpp"
#include "random_rows.hpp"
#include "reference/oracle.hpp"

namespace fastkv::test {
namespace {

using cuda::DeviceArray;
using cuda::to_host;

class Selection : public testing::Test {
 protected:
  /// Scores with many ties: `levels` different values, some −0 and some below 0.
  std::vector<float> tied_scores(std::size_t size, int levels) {
    std::vector<float> out(size);
    for (float& s : out)
      s = float(int(random_() % std::uint32_t(levels)) - 1) * 0.25f * (random_() % 5 == 0 ? -0.0f : 1.0f);
    return out;
  }
  cuda::Stream stream_;
  static constexpr std::uint64_t kSeed = 77;
  std::mt19937_64 random_{kSeed};
};

TEST_F(Selection, PoolsAsDefined) {
  for_each_schedule([this] {
    for (const std::int64_t n : {1, 2, 5, 255, 256, 257, 1000}) {
      const int heads = 3;
      const std::vector<float> scores = tied_scores(std::size_t(heads * n), 50);
      const auto from = on_device(stream_, scores);
      for (const auto& [kernel, shift] : {std::pair{1, 0}, {7, 0}, {15, 4}, {5, 2}}) {
        for (const Pooling pooling : {Pooling::max, Pooling::avg}) {
          DeviceArray<float> to(stream_, scores.size(), "test");
          cuda::pool(stream_, from.data(), heads, n, pooling, {kernel / 2 - shift, kernel / 2 + shift}, to.data());
          const std::vector<float> found = to_host(stream_, to.data(), scores.size());
          for (int h = 0; h < heads; ++h) {
            const std::vector<double> row(scores.begin() + h * n, scores.begin() + (h + 1) * n);
            const std::vector<double> expected = pooled(row, pooling, kernel, shift);
            for (std::int64_t j = 0; j < n; ++j)  // sums of at most 15 multiples of 1/4: exact but for the division
              EXPECT_EQ(found[std::size_t(h * n + j)],
                        pooling == Pooling::max ? float(expected[std::size_t(j)])
                                                : float(float(expected[std::size_t(j)] * kernel) / float(kernel)))
                  << "n " << n << ", width " << kernel << ", shift " << shift << ", score " << j;
          }
        }
      }
    }
  });
}

TEST_F(Selection, ReducesGroupsOfHeads) {
  for_each_schedule([this] {
    const int heads = 12;
    const std::int64_t n = 300;
    const std::vector<float> scores = tied_scores(std::size_t(heads * n), 50);
    const auto from = on_device(stream_, scores);
    for (const int groups : {1, 3, 4, 12}) {
      for (const GroupReduce reduce : {GroupReduce::sum, GroupReduce::max}) {
        DeviceArray<float> to(stream_, std::size_t(groups * n), "test");
        cuda::reduce_heads(stream_, from.data(), heads, n, groups, reduce, to.data());
        const std::vector<float> found = to_host(stream_, to.data(), to.size());
        for (int g = 0; g < groups; ++g)
          for (std::int64_t j = 0; j < n; ++j) {
            float expected = scores[std::size_t(g * (heads / groups) * n + j)];
            for (int h = g * (heads / groups) + 1; h < (g + 1) * (heads / groups); ++h) {
              const float s = scores[std::size_t(h * n + j)];
              expected = reduce == GroupReduce::sum ? expected + s : std::max(expected, s);
            }
            ASSERT_EQ(found[std::size_t(g * n + j)], expected) << groups << " groups, score " << j;
          }
      }
    }
  });
}

TEST_F(Selection, KeepsTheBestRowsInOrder) {
  for_each_schedule([this] {
    struct Case {
      std::int64_t n, scored, first, last;
      std::vector<std::int32_t> kept;
      int levels;
    };
    const std::vector<Case> cases = {
        {1, 1, 0, 0, {1, 0, 1}, 4},
        {40, 32, 0, 8, {8, 9, 40}, 4},
        {513, 505, 4, 8, {100, 12, 512}, 3},
        {2048, 2040, 0, 8, {409, 2047, 9}, 1000000},
        {2049, 2041, 2, 8, {204, 1024, 11}, 7},
        {4500, 4500, 0, 0, {1, 2250, 4499}, 2},
        {4097, 4000, 0, 97, {97, 4097, 2000}, 100},
    };
    for (const Case& c : cases) {
      const int heads = int(c.kept.size());
      const std::vector<float> scores = tied_scores(std::size_t(heads * c.scored), c.levels);
      std::vector<std::int64_t> offsets;
      std::int64_t total = 0;
      for (const std::int32_t k : c.kept) offsets.push_back(total), total += k;
      DeviceArray<std::int32_t> rows(stream_, std::size_t(total), "test");
      const auto from = on_device(stream_, scores);
      const auto kept = on_device(stream_, c.kept);
      const auto starts = on_device(stream_, offsets);
      cuda::top_k(stream_, from.data(), heads, c.scored, c.n, kept.data(), starts.data(), c.first, c.last, rows.data());
      const std::vector<std::int32_t> found = to_host(stream_, rows.data(), rows.size());
      for (int h = 0; h < heads; ++h) {
        const std::int64_t k = c.kept[std::size_t(h)], free = c.n - c.first - c.last;
        std::vector<double> competing(scores.begin() + h * c.scored + c.first,
                                      scores.begin() + h * c.scored + c.first + free);
        std::vector<std::int32_t> expected(std::size_t(c.first));
        std::iota(expected.begin(), expected.end(), 0);
        for (const std::int32_t i : top_indices(competing, k - c.first - c.last))
          expected.push_back(i + std::int32_t(c.first));
        for (std::int64_t i = c.n - c.last; i < c.n; ++i) expected.push_back(std::int32_t(i));
        if (k == 0) expected.clear();
        const auto at = found.begin() + offsets[std::size_t(h)];
        EXPECT_EQ(std::vector<std::int32_t>(at, at + k), expected) << c.n << " rows, head " << h << ", seed " << kSeed;
      }
    }
  });
}

TEST_F(Selection, TakesTheEnds) {
  for_each_schedule([this] {
    for (const auto& [n, first, last] : {std::tuple{20, 2, 3}, {7, 7, 0}, {700, 0, 600}, {5, 0, 1}}) {
      DeviceArray<std::int32_t> rows(stream_, std::size_t(3 * (first + last)), "test");
      cuda::select_ends(stream_, n, first, last, 3, rows.data());
      std::vector<std::int32_t> expected;
      for (int h = 0; h < 3; ++h) {
        for (int i = 0; i < first; ++i) expected.push_back(i);
        for (int i = n - last; i < n; ++i) expected.push_back(i);
      }
      EXPECT_EQ(to_host(stream_, rows.data(), rows.size()), expected) << n;
    }
  });
}

TEST_F(Selection, CoverageIsTheKeptShare) {
  for_each_schedule([this] {
    const int heads = 6;
    const std::int64_t scored = 1000, rows = 8;
    std::vector<float> scores(std::size_t(heads * scored));
    for (float& s : scores) s = float(random_() % 1000) * 1e-6f;
    const auto raw = on_device(stream_, scores);
    for (const int selections : {1, 3, 6}) {
      std::vector<std::int32_t> selected, kept;
      std::vector<std::int64_t> offsets;
      for (int s = 0; s < selections; ++s) {
        offsets.push_back(std::int64_t(selected.size()));
        for (std::int32_t j = s; j < scored + rows; j += 3 + s)
          selected.push_back(j);  // rows beyond the scored ones too
        kept.push_back(std::int32_t(std::int64_t(selected.size()) - offsets.back()));
      }
      const auto chosen = on_device(stream_, selected);
      const auto starts = on_device(stream_, offsets);
      const auto counts = on_device(stream_, kept);
      DeviceArray<double> shares(stream_, heads, "test");
      cuda::coverage(stream_, raw.data(), heads, scored, chosen.data(), starts.data(), counts.data(), selections, rows,
                     shares.data());
      const std::vector<double> found = to_host(stream_, shares.data(), shares.size());
      for (int h = 0; h < heads; ++h) {
        const std::size_t s = std::size_t(h * selections / heads);
        double all = 0, held = 0;
        for (std::int64_t j = 0; j < scored; ++j) all += double(scores[std::size_t(h * scored + j)]);
        for (std::int32_t i = 0; i < kept[s]; ++i) {
          const std::int32_t j = selected[std::size_t(offsets[s] + i)];
          if (j < scored) held += double(scores[std::size_t(h * scored + j)]);
        }
        // sums of at most 1,008 numbers below 1e-3 in double, and one division
        EXPECT_NEAR(found[std::size_t(h)], (held + double(rows) - all) / double(rows), 1008 * 2.3e-16) << "head " << h;
      }
    }
  });
}

}  // namespace
}  // namespace fastkv::test
