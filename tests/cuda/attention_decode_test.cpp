// Attention of a token over its cache, its own row included, against a softmax in double: every cache type, ragged
// heads, lengths at and around splits; a result depends on the rows alone.
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "backend/cuda/kernels/attention.hpp"
#include "backend/cuda/kernels/cache.hpp"
#include "cuda_test.hpp"
#include "random_rows.hpp"
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

struct Case {
  int heads, heads_kv, stored, d;
  CacheType k, v;
  std::vector<std::int32_t> kept;  ///< [stored]
  std::int32_t appended = 1;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "heads " << c.heads << "/" << c.heads_kv << " stored " << c.stored << " d " << c.d << " " << name(c.k)
             << " " << name(c.v) << " rows " << c.kept[0] << "+" << c.appended;
}

/// A layer's cache of random rows, and attention over it.
class Decode {
 public:
  explicit Decode(const Case& c) : case_(c), shape_{c.heads, c.heads_kv, c.d, 1 / std::sqrt(float(c.d))} {
    for (const std::int32_t kept : c.kept) first_.push_back(rows_), rows_ += kept + c.appended + 2;
    q_ = random_floats(std::size_t(c.heads * c.d), 1, 3);
    new_k_ = random_floats(std::size_t(c.heads_kv * c.d), 4, 2);
    new_v_ = random_floats(new_k_.size(), 5, 2);
    fill(c.k, 2, k_bytes_);
    fill(c.v, 3, v_bytes_);
  }

  std::vector<bf16> run(std::int64_t spare = 0) {
    const auto q = on_device(stream_, q_), k = on_device(stream_, new_k_), v = on_device(stream_, new_v_);
    const auto offsets = on_device(stream_, first_);
    const auto kept = on_device(stream_, case_.kept);
    const auto appended = on_device(stream_, std::vector<std::int32_t>{case_.appended});
    cuda::CacheView view{k_bytes_.data(),
                         v_bytes_.data(),
                         case_.k,
                         case_.v,
                         cuda::cache_row_bytes(case_.k, case_.d),
                         cuda::cache_row_bytes(case_.v, case_.d),
                         offsets.data(),
                         kept.data(),
                         case_.stored,
                         0};
    view.capacity = *std::max_element(case_.kept.begin(), case_.kept.end()) + case_.appended + spare;
    const cuda::DeviceArray<std::byte> partial(stream_, cuda::attention_decode_bytes(shape_, view.capacity), "partial");
    const cuda::DeviceArray<bf16> out(stream_, q_.size(), "out");
    cuda::attention_decode(stream_, shape_, {q.data(), k.data(), v.data()}, view, appended.data(), partial.data(),
                           out.data());
    return cuda::to_host(stream_, out.data(), out.size());
  }

  void expect_right(const std::vector<bf16>& out) {
    const int d = case_.d, sharing = case_.heads / case_.stored;
    const std::vector<float> k_ = read(case_.k, k_bytes_), v_ = read(case_.v, v_bytes_);
    expect_appended(k_, new_k_);
    expect_appended(v_, new_v_);
    std::vector<double> found, expected, bounds;
    for (int h = 0; h < case_.heads; ++h) {
      const std::int64_t rows = case_.kept[std::size_t(h / sharing)] + case_.appended;
      const std::int64_t first = first_[std::size_t(h / sharing)] * d;
      std::vector<double> p;
      double top = -INFINITY, terms = 0, sum = 0;
      for (std::int64_t j = 0; j < rows; ++j) {
        double s = 0, magnitude = 0;
        for (int c = 0; c < d; ++c) {
          const double x = double(shape_.scale) * q_[std::size_t(h * d + c)] * k_[std::size_t(first + j * d + c)];
          s += x, magnitude += std::abs(x);
        }
        p.push_back(s), top = std::max(top, s), terms = std::max(terms, magnitude);
      }
      for (double& x : p) sum += x = std::exp(x - top);
      // A score and the largest: d products and sums, their scale, twice; the exponential 4 eps; sums of all rows.
      const double relative = 2 * (d + 6) * kEps * terms + 8 * kEps + double(rows + 8) * kEps;
      for (int c = 0; c < d; ++c) {
        double o = 0, weight = 0;
        for (std::int64_t j = 0; j < rows; ++j) {
          const double x = v_[std::size_t(first + j * d + c)];
          o += p[std::size_t(j)] * x, weight += p[std::size_t(j)] * std::abs(x);
        }
        found.push_back(value(out[std::size_t(h * d + c)]));
        expected.push_back(o / sum);
        bounds.push_back(2 * relative * weight / sum + 0x1p-8 * std::abs(o / sum) * (1 + 1e-3));
      }
    }
    expect_close(found, expected, bounds);
  }

 private:
  std::vector<float> read(CacheType type, const cuda::DeviceArray<std::byte>& bytes) {
    const cuda::DeviceArray<float> rows(stream_, std::size_t(rows_ * case_.d), "rows");
    cuda::read_rows(stream_, type, bytes.data(), rows_, case_.d, rows.data());
    return cuda::to_host(stream_, rows.data(), rows.size());
  }
  /// The newest row of each stored head is that of its key/value head, but for what its type rounds.
  void expect_appended(const std::vector<float>& cache, const std::vector<float>& row) {
    for (int s = 0; s < case_.stored; ++s) {
      const std::int64_t at = first_[std::size_t(s)] + case_.kept[std::size_t(s)] + case_.appended - 1;
      for (int c = 0; c < case_.d; ++c)
        expect_close(cache[std::size_t(at * case_.d + c)],
                     row[std::size_t(s * case_.heads_kv / case_.stored * case_.d + c)], 2.0 / 127);
    }
  }
  /// Random rows of `type`.
  void fill(CacheType type, unsigned seed, cuda::DeviceArray<std::byte>& bytes) {
    const int d = case_.d;
    const std::int64_t stride = cuda::cache_row_bytes(type, d);
    const std::vector<f16> rows = random_rows<f16>(std::size_t(rows_ * d), seed, 2);
    const auto device_rows = on_device(stream_, rows);
    bytes = cuda::DeviceArray<std::byte>(stream_, std::size_t(rows_ * stride), "cache");
    std::vector<std::int32_t> all(static_cast<std::size_t>(rows_));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = std::int32_t(i);
    const auto selected = on_device(stream_, all);
    const auto zero = on_device(stream_, std::vector<std::int64_t>{0});
    const auto kept = on_device(stream_, std::vector<std::int32_t>{std::int32_t(rows_)});
    const cuda::CacheView view{bytes.data(), bytes.data(), type, type, stride, stride, zero.data(), kept.data(), 1, 0};
    cuda::store_rows(stream_, {1, 1, d, 1}, device_rows.data(), device_rows.data(), rows_, selected.data(), zero.data(),
                     rows_, view);
  }

  Case case_;
  cuda::AttentionShape shape_;
  cuda::Stream stream_;
  std::int64_t rows_ = 0;
  std::vector<std::int64_t> first_;
  std::vector<float> q_, new_k_, new_v_;
  cuda::DeviceArray<std::byte> k_bytes_, v_bytes_;
};

TEST(CudaAttentionDecode, AgreesWithDouble) {
  using enum CacheType;
  for (const Case& c : {Case{1, 1, 1, 8, bf16, bf16, {0}}, Case{4, 1, 1, 64, bf16, bf16, {126}},
                        Case{3, 1, 1, 64, f16, f16, {127}}, Case{4, 2, 2, 96, q8_0, q8_0, {128, 300}, 5},
                        Case{8, 1, 1, 128, f32, f32, {255}}, Case{9, 1, 1, 32, bf16, bf16, {40}},
                        Case{7, 1, 1, 128, bf16, q8_0, {129}, 2}, Case{4, 2, 4, 128, q8_0, bf16, {1, 17, 130, 64}},
                        Case{2, 1, 2, 64, f16, f32, {33, 200}}, Case{2, 2, 2, 80, f32, f16, {70, 1}},
                        Case{5, 1, 1, 120, bf16, f16, {31}}, Case{6, 3, 3, 24, f16, bf16, {5, 260, 64}}}) {
    SCOPED_TRACE(c);
    Decode decode(c);
    decode.expect_right(decode.run());
  }
}

TEST(CudaAttentionDecode, ShortAndLongSplits) {
  for (const std::int32_t rows : {8191, 8192, 8704, 9000}) {
    const Case c{4, 1, 1, 16, CacheType::bf16, CacheType::bf16, {rows - 1}};
    SCOPED_TRACE(c);
    Decode decode(c);
    decode.expect_right(decode.run());
  }
}

TEST(CudaAttentionDecode, DependsOnTheRowsAlone) {
  for (const Case& c : {Case{4, 1, 1, 64, CacheType::bf16, CacheType::q8_0, {300}},
                        Case{2, 2, 2, 128, CacheType::f16, CacheType::f16, {127, 3}}}) {
    SCOPED_TRACE(c);
    Decode decode(c);
    const std::vector<test::bf16> out = decode.run();
    EXPECT_TRUE(same_bits(decode.run(10000), out)) << "a larger capacity";
    for_each_schedule([&] { EXPECT_TRUE(same_bits(decode.run(), out)); });
  }
}

}  // namespace
}  // namespace fastkv::test
