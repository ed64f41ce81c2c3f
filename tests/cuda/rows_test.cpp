// Kernels on rows of activations against double arithmetic.
#include "backend/cuda/kernels/rows.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "backend/cuda/device.hpp"
#include "cuda_test.hpp"
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

using cuda::DeviceArray;
using cuda::Stream;
using cuda::to_device;
using cuda::to_host;
using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr double kBf16 = 0x1p-8, kF16 = 0x1p-11;  ///< unit roundoffs
constexpr float kMost = 65504;                    ///< of float16, which stays finite

class RowsTest : public testing::Test {
 protected:
  template <class T>
  std::vector<T> random_values(std::size_t n) {
    std::normal_distribution<float> normal;
    std::vector<T> out(n);
    for (T& value : out) value = T(normal(random_));
    return out;
  }
  /// Strictly ascending.
  std::vector<std::int32_t> some_rows(std::int64_t n, std::int64_t of) {
    std::vector<std::int32_t> out;
    for (std::int64_t i = 0; i < n; ++i) out.push_back(std::int32_t(of - n + i - (n - 1 - i) * (of - n) / n));
    return out;
  }
  template <class T>
  static std::vector<double> doubles(const std::vector<T>& values) {
    std::vector<double> out;
    for (const T& value : values) out.push_back(double(float(value)));
    return out;
  }

  std::mt19937 random_{17};
};

/// Cosines and sines as the backend makes them for positions `at`, [n][half].
std::vector<float2> angles(const std::vector<std::int32_t>& at, const std::vector<double>& inv_freq, float magnitude) {
  std::vector<float2> out;
  for (const std::int32_t position : at)
    for (const double frequency : inv_freq)
      out.push_back(
          {float(std::cos(position * frequency)) * magnitude, float(std::sin(position * frequency)) * magnitude});
  return out;
}

std::vector<double> frequencies(int d) {
  std::vector<double> out;
  for (int i = 0; i < d / 2; ++i) out.push_back(std::pow(10000.0, -2.0 * i / d));
  return out;
}

/// The pair at x[0], x[1] turned, and how far float32 and one rounding to float16 may be off.
struct Turned {
  double value[2], bound[2];
};
Turned turned(const float* x, float2 angle) {
  const double a = double(x[0]), b = double(x[1]), c = double(angle.x), s = double(angle.y);
  Turned out{{std::clamp(a * c - b * s, -double(kMost), double(kMost)),
              std::clamp(b * c + a * s, -double(kMost), double(kMost))},
             {}};
  const double size[] = {std::abs(a * c) + std::abs(b * s), std::abs(b * c) + std::abs(a * s)};
  for (int i = 0; i < 2; ++i)
    out.bound[i] = 3 * kEps * size[i] * (1 + kF16) + kF16 * std::abs(out.value[i]) + 0x1p-25;  // smallest numbers
  return out;
}

TEST_F(RowsTest, Embed) {
  const Stream stream;
  for (const int width : {1, 64, 100, 257}) {
    const auto table = random_values<bf16>(std::size_t(11 * width));
    const std::vector<std::int32_t> ids = {3, 0, 10, 3, 7};
    const auto device_table = to_device<bf16>(stream, table, "table");
    const auto device_ids = to_device<std::int32_t>(stream, ids, "ids");
    const DeviceArray<float> x(stream, ids.size() * std::size_t(width), "x");
    cuda::embed(stream, device_table.data(), device_ids.data(), std::int64_t(ids.size()), width, x.data());
    std::vector<float> expected;
    for (const std::int32_t id : ids)
      for (int i = 0; i < width; ++i) expected.push_back(float(table[std::size_t(id * width + i)]));
    EXPECT_EQ(to_host(stream, x.data(), x.size()), expected) << width;
  }
}

TEST_F(RowsTest, RmsNorm) {
  const Stream stream;
  constexpr std::int64_t kRows = 5;
  for (const int width : {1, 31, 64, 100, 256, 257, 1000}) {
    const auto x = random_values<float>(std::size_t(kRows * width)), weight = random_values<float>(std::size_t(width));
    const auto device_x = to_device<float>(stream, x, "x"), device_weight = to_device<float>(stream, weight, "weight");
    for (const std::int64_t m : {std::int64_t(1), kRows}) {
      std::vector<double> expected, bounds;
      for (std::int64_t i = 0; i < m; ++i) {
        const float* row = x.data() + i * width;
        double squares = 0;
        for (int k = 0; k < width; ++k) squares += double(row[k]) * double(row[k]);
        for (int k = 0; k < width; ++k) {
          expected.push_back(double(weight[std::size_t(k)]) * double(row[k]) / std::sqrt(squares / width + 1e-5));
          // a sum of squares is off by (width + 1) roundoffs at most, its root by half of that; rsqrt and four more
          // operations; then one rounding
          const double off = ((width + 1) / 2.0 + 6) * kEps;
          bounds.push_back((off + kBf16 * (1 + off)) * std::abs(expected.back()));
        }
      }
      std::vector<double> first;
      for_each_schedule([&] {
        const DeviceArray<bf16> out(stream, std::size_t(m * width), "out");
        cuda::rms_norm(stream, device_x.data(), m, width, device_weight.data(), 1e-5f, out.data());
        const auto found = doubles(to_host(stream, out.data(), out.size()));
        expect_close(found, expected, bounds);
        if (first.empty()) first = found;
        EXPECT_EQ(found, first);
      });
    }
  }
}

TEST_F(RowsTest, RopeTable) {
  const Stream stream;
  for (const int d : {8, 64, 80, 128}) {
    const std::vector<double> inv_freq = frequencies(d);
    const std::vector<std::int32_t> positions = {0, 1, 77, 8191, 131071, 1048575};
    const auto device_positions = to_device<std::int32_t>(stream, positions, "positions");
    const auto device_inv_freq = to_device<double>(stream, inv_freq, "frequencies");
    const DeviceArray<float2> table(stream, positions.size() * inv_freq.size(), "table");
    cuda::rope_table(stream, device_positions.data(), std::int64_t(positions.size()), device_inv_freq.data(), d, 1.25f,
                     table.data());
    const std::vector<float2> found = to_host(stream, table.data(), table.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double angle = positions[i / inv_freq.size()] * inv_freq[i % inv_freq.size()];
      const double bound = 1.25 * (2 * kEps + 1e-12);  // two roundings of values up to 1
      expect_close(found[i].x, 1.25 * std::cos(angle), bound);
      expect_close(found[i].y, 1.25 * std::sin(angle), bound);
    }
  }
}

TEST_F(RowsTest, StoreLayerKv) {
  const Stream stream;
  constexpr std::int64_t n = 13, first = 4, m = 7;
  constexpr int heads = 3;
  for (const int d : {8, 80, 128})
    for (const bool values : {true, false}) {
      const int parts = values ? 2 : 1, width = parts * heads * d;
      auto kv = random_values<float>(std::size_t(m * width));
      kv[1] = -1e6f, kv[std::size_t(width - 1)] = 1e6f;
      std::vector<std::int32_t> positions;
      for (std::int64_t i = 0; i < n; ++i) positions.push_back(std::int32_t(5 * i + 2));
      const auto table = angles(positions, frequencies(d), 1.0f);
      const auto device_kv = to_device<float>(stream, kv, "kv");
      const auto device_table = to_device<float2>(stream, table, "table");
      const std::vector<f16> before(std::size_t(heads * n * d), f16(-3.0f));
      const auto k = to_device<f16>(stream, before, "k"), v = to_device<f16>(stream, before, "v");
      cuda::store_layer_kv(stream, device_kv.data(), device_table.data(), first, m, n, heads, d, k.data(),
                           values ? v.data() : nullptr);
      const auto found_k = to_host(stream, k.data(), k.size()), found_v = to_host(stream, v.data(), v.size());
      std::vector<double> expected_k(found_k.size(), -3), expected_v(found_v.size(), -3), bounds(found_k.size(), 0);
      for (std::int64_t i = 0; i < m; ++i)
        for (int h = 0; h < heads; ++h)
          for (int c = 0; c < d; c += 2) {
            const float* from = kv.data() + i * width + h * d + c;
            const std::size_t to = std::size_t((h * n + first + i) * d + c);
            const Turned pair = turned(from, table[std::size_t((first + i) * d / 2 + c / 2)]);
            for (std::size_t e = 0; e < 2; ++e) {
              expected_k[to + e] = pair.value[e];
              bounds[to + e] = pair.bound[e];
              if (values)
                expected_v[to + e] = double(float(f16(std::clamp(from[heads * d + std::int64_t(e)], -kMost, kMost))));
            }
          }
      expect_close(doubles(found_k), expected_k, bounds);
      expect_close(doubles(found_v), expected_v, 0);
    }
}

TEST_F(RowsTest, RotateQueries) {
  const Stream stream;
  constexpr std::int64_t m = 6;
  constexpr int heads = 5, d = 96;
  auto q = random_values<float>(std::size_t(m * heads * d));
  q[0] = 1e6f;
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < m; ++i) positions.push_back(std::int32_t(3 * i));
  const auto table = angles(positions, frequencies(d), 1.5f);
  const auto device_table = to_device<float2>(stream, table, "table");
  const auto device_q = to_device<float>(stream, q, "q");
  const DeviceArray<f16> turned_q(stream, q.size(), "q");
  cuda::rotate_queries(stream, device_q.data(), device_table.data(), m, heads, d, turned_q.data());
  std::vector<double> expected, bounds;
  for (std::int64_t i = 0; i < m; ++i)
    for (int c = 0; c < heads * d; c += 2) {
      const Turned pair = turned(q.data() + i * heads * d + c, table[std::size_t(i * (d / 2) + c % d / 2)]);
      expected.insert(expected.end(), pair.value, pair.value + 2);
      bounds.insert(bounds.end(), pair.bound, pair.bound + 2);
    }
  expect_close(doubles(to_host(stream, turned_q.data(), turned_q.size())), expected, bounds);
}

TEST_F(RowsTest, SiluMul) {
  const Stream stream;
  for (const int width : {1, 12, 64, 172, 2056})
    for (const std::int64_t m : {1, 3}) {
      auto gate_up = random_values<bf16>(std::size_t(m * 2 * width));
      gate_up[0] = bf16(-90.0f);  // exp overflows
      const auto device_gate_up = to_device<bf16>(stream, gate_up, "gate and up");
      const DeviceArray<bf16> out(stream, std::size_t(m * width), "out");
      cuda::silu_mul(stream, device_gate_up.data(), m, width, out.data());
      std::vector<double> expected, bounds;
      for (std::int64_t i = 0; i < m; ++i)
        for (int c = 0; c < width; ++c) {
          const double g = double(float(gate_up[std::size_t(i * 2 * width + c)]));
          const double u = double(float(gate_up[std::size_t((i * 2 + 1) * width + c)]));
          expected.push_back(g / (1 + std::exp(-g)) * u);
          // the fast exponential is off by 2 + 1.2·|g| units in the last place
          const double off = 2 * kEps * (2 + 1.2 * std::abs(g)) + 4 * kEps;
          bounds.push_back((off + kBf16 * (1 + off)) * std::abs(expected.back()) + 1e-36);
        }
      expect_close(doubles(to_host(stream, out.data(), out.size())), expected, bounds);
    }
}

TEST_F(RowsTest, Gathers) {
  const Stream stream;
  constexpr std::int64_t n = 40;
  for (const int width : {1, 100, 300}) {
    const auto x = random_values<float>(std::size_t(n * width));
    const auto device_x = to_device<float>(stream, x, "x");
    for (const std::int64_t m : {1, 7, 40}) {
      const std::vector<std::int32_t> rows = some_rows(m, n);
      const auto device_rows = to_device<std::int32_t>(stream, rows, "rows");
      const DeviceArray<float> to(stream, std::size_t(m * width), "to");
      cuda::gather_rows(stream, device_x.data(), device_rows.data(), m, width, to.data());
      std::vector<float> expected;
      for (const std::int32_t row : rows)
        expected.insert(expected.end(), x.begin() + row * width, x.begin() + (row + 1) * width);
      EXPECT_EQ(to_host(stream, to.data(), to.size()), expected);
    }
  }
  std::vector<std::int32_t> values, expected;
  for (std::int32_t i = 0; i < 700; ++i) values.push_back(i * 7);
  const std::vector<std::int32_t> rows = some_rows(300, 700);
  for (const std::int32_t row : rows) expected.push_back(row * 7);
  const auto from = to_device<std::int32_t>(stream, values, "values");
  const auto device_rows = to_device<std::int32_t>(stream, rows, "rows");
  const DeviceArray<std::int32_t> to(stream, rows.size(), "to");
  cuda::gather_values(stream, from.data(), device_rows.data(), std::int64_t(rows.size()), to.data());
  EXPECT_EQ(to_host(stream, to.data(), to.size()), expected);
}

}  // namespace
}  // namespace fastkv::test
