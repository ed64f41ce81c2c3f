// Rows into and out of a layer's cache: which row goes where, how each type rounds, that nothing else is written.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "backend/cuda/kernels/cache.hpp"
#include "core/index_rules.hpp"
#include "cuda_test.hpp"
#include "random_rows.hpp"
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

constexpr CacheType kTypes[] = {CacheType::f32, CacheType::f16, CacheType::bf16, CacheType::q8_0};

/// `row` as a cache of `type` holds it.
std::vector<float> stored(CacheType type, const float* row, int d) {
  std::vector<float> out(row, row + d);
  for (int i = 0; i < d; ++i) {
    float& x = out[std::size_t(i)];
    if (type == CacheType::bf16) x = bf16_to_f32(f32_to_bf16(x));
    if (type == CacheType::f16) x = f16_to_f32(f32_to_f16(std::clamp(x, -65504.f, 65504.f)));
    if (type != CacheType::q8_0 || i % 32 > 0) continue;
    float top = 0;
    for (int j = i; j < i + 32; ++j) top = std::max(top, std::abs(row[j]));
    const float scale = f16_to_f32(f32_to_f16(std::min(top / 127, 65504.f))), inverse = scale > 0 ? 1 / scale : 0;
    for (int j = i; j < i + 32; ++j)
      out[std::size_t(j)] = scale * std::nearbyint(std::clamp(row[j] * inverse, -127.f, 127.f));
  }
  return out;
}

class CudaCache : public testing::TestWithParam<int> {  ///< d
 protected:
  static constexpr std::int64_t kRows = 40;
  static constexpr int kHeads = 4, kHeadsKv = 2;

  int d() const { return GetParam(); }
  cuda::AttentionShape shape() const { return {kHeads, kHeadsKv, d(), 1}; }

  /// Stored heads one after another, with `spare` rows after each one's kept rows.
  struct Cache {
    cuda::DeviceArray<std::byte> k, v;
    cuda::DeviceArray<std::int64_t> offsets;
    cuda::DeviceArray<std::int32_t> kept;
    cuda::CacheView view;
    std::vector<std::int64_t> first;
    std::int64_t rows;
  };
  Cache make_cache(CacheType k, CacheType v, const std::vector<std::int32_t>& kept, std::int64_t spare) {
    Cache cache{};
    for (const std::int32_t rows : kept) cache.first.push_back(cache.rows), cache.rows += rows + spare;
    cache.view.k_type = k, cache.view.v_type = v;
    cache.view.k_stride = cuda::cache_row_bytes(k, d()), cache.view.v_stride = cuda::cache_row_bytes(v, d());
    cache.k =
        on_device(stream_, std::vector<std::byte>(std::size_t(cache.rows * cache.view.k_stride), std::byte(0x55)));
    cache.v =
        on_device(stream_, std::vector<std::byte>(std::size_t(cache.rows * cache.view.v_stride), std::byte(0x55)));
    cache.offsets = on_device(stream_, cache.first), cache.kept = on_device(stream_, kept);
    cache.view.k = cache.k.data(), cache.view.v = cache.v.data();
    cache.view.offsets = cache.offsets.data(), cache.view.kept = cache.kept.data();
    cache.view.stored_heads = int(kept.size());
    cache.view.capacity = *std::max_element(kept.begin(), kept.end()) + spare;
    return cache;
  }
  /// What attention_decode() does to the cache.
  void append(const float* k, const float* v, const std::int32_t* appended, const cuda::CacheView& cache) {
    const auto q = on_device(stream_, std::vector<float>(std::size_t(kHeads * d())));
    const cuda::DeviceArray<std::byte> partial(stream_, cuda::attention_decode_bytes(shape(), cache.capacity),
                                               "partial");
    const cuda::DeviceArray<bf16> out(stream_, q.size(), "out");
    cuda::attention_decode(stream_, shape(), {q.data(), k, v}, cache, appended, partial.data(), out.data());
  }
  std::vector<float> read(CacheType type, const std::byte* rows, std::int64_t count) {
    const cuda::DeviceArray<float> out(stream_, std::size_t(count * d()), "out");
    cuda::read_rows(stream_, type, rows, count, d(), out.data());
    return cuda::to_host(stream_, out.data(), out.size());
  }
  bool untouched(const cuda::DeviceArray<std::byte>& bytes, std::int64_t row, std::int64_t stride) {
    const std::vector<std::byte> all = cuda::to_host(stream_, bytes.data(), bytes.size());
    return std::all_of(all.begin() + row * stride, all.begin() + (row + 1) * stride,
                       [](std::byte b) { return b == std::byte(0x55); });
  }
  static std::vector<float> as_float(const std::vector<f16>& from) {
    std::vector<float> out;
    for (const f16 x : from) out.push_back(float(value(x)));
    return out;
  }
  std::vector<CacheType> types() const {
    return {std::begin(kTypes), std::end(kTypes) - (d() % 32 ? 1 : 0)};  // q8_0 has blocks of 32
  }

  cuda::Stream stream_;
};

TEST_P(CudaCache, StoresSelectedRowsRoundedOnce) {
  const std::vector<f16> k = random_rows<f16>(std::size_t(kHeadsKv * kRows * d()), 1, 5);
  const std::vector<f16> v = random_rows<f16>(k.size(), 2, 0.1f);
  const std::vector<float> k_values = as_float(k), v_values = as_float(v);
  const auto k_device = on_device(stream_, k), v_device = on_device(stream_, v);
  for (const CacheType type : types()) {
    for (const int heads : {kHeadsKv, kHeads}) {
      SCOPED_TRACE(testing::Message() << name(type) << " " << heads << " stored heads");
      const std::vector<std::int32_t> kept =
          heads == kHeadsKv ? std::vector<std::int32_t>{17, 40} : std::vector<std::int32_t>{1, 33, 5, 16};
      std::vector<std::int32_t> selected;
      std::vector<std::int64_t> from;
      for (const std::int32_t rows : kept) {
        from.push_back(std::int64_t(selected.size()));
        for (std::int32_t i = 0; i < rows; ++i) selected.push_back(std::int32_t(kRows) - rows + i);
      }
      const CacheType v_type = type == CacheType::f32 ? CacheType::bf16 : CacheType::f32;  // each has its own
      const Cache cache = make_cache(type, v_type, kept, 2);
      const auto selected_device = on_device(stream_, selected);
      const auto from_device = on_device(stream_, from);
      cuda::store_rows(stream_, shape(), k_device.data(), v_device.data(), kRows, selected_device.data(),
                       from_device.data(), *std::max_element(kept.begin(), kept.end()), cache.view);
      for (int head = 0; head < heads; ++head) {
        const std::int64_t first = cache.first[std::size_t(head)], rows = kept[std::size_t(head)];
        const std::vector<float> keys = read(type, cache.view.k + first * cache.view.k_stride, rows);
        const std::vector<float> values = read(v_type, cache.view.v + first * cache.view.v_stride, rows);
        for (std::int64_t i = 0; i < rows; ++i) {
          const std::int64_t source = (head * kHeadsKv / heads * kRows + kRows - rows + i) * d();
          const std::ptrdiff_t at = i * d();
          EXPECT_EQ(std::vector<float>(keys.begin() + at, keys.begin() + at + d()),
                    stored(type, k_values.data() + source, d()));
          EXPECT_EQ(std::vector<float>(values.begin() + at, values.begin() + at + d()),
                    stored(v_type, v_values.data() + source, d()));
        }
        for (std::int64_t row = first + rows; row < first + rows + 2; ++row) {
          EXPECT_TRUE(untouched(cache.k, row, cache.view.k_stride));
          EXPECT_TRUE(untouched(cache.v, row, cache.view.v_stride));
        }
      }
    }
  }
}

TEST_P(CudaCache, AppendsTheTokensRow) {
  std::vector<float> k = random_floats(std::size_t(kHeadsKv * d()), 3, 3);
  const std::vector<float> v = random_floats(k.size(), 4, 1e-3f);
  k[1] = 1e6f;  // float16 stays finite
  const auto k_device = on_device(stream_, k), v_device = on_device(stream_, v);
  for (const CacheType type : types()) {
    for (const int heads : {kHeadsKv, kHeads}) {
      for (const std::int32_t appended : {1, 3}) {
        SCOPED_TRACE(testing::Message() << name(type) << " " << heads << " stored heads, row " << appended);
        const std::vector<std::int32_t> kept =
            heads == kHeadsKv ? std::vector<std::int32_t>{3, 1} : std::vector<std::int32_t>{1, 2, 4, 1};
        const Cache cache = make_cache(type, type, kept, 3);
        const auto appended_device = on_device(stream_, std::vector<std::int32_t>{appended});
        append(k_device.data(), v_device.data(), appended_device.data(), cache.view);
        for (int head = 0; head < heads; ++head) {
          const std::int64_t first = cache.first[std::size_t(head)], rows = kept[std::size_t(head)];
          for (std::int64_t row = 0; row < rows + 3; ++row) {
            if (row != rows + appended - 1) {
              EXPECT_TRUE(untouched(cache.k, first + row, cache.view.k_stride)) << row;
              EXPECT_TRUE(untouched(cache.v, first + row, cache.view.v_stride)) << row;
              continue;
            }
            const std::ptrdiff_t source = head * kHeadsKv / heads * d();
            EXPECT_EQ(read(type, cache.view.k + (first + row) * cache.view.k_stride, 1),
                      stored(type, k.data() + source, d()));
            EXPECT_EQ(read(type, cache.view.v + (first + row) * cache.view.v_stride, 1),
                      stored(type, v.data() + source, d()));
          }
        }
      }
    }
  }
}

TEST_P(CudaCache, ZerosStayZeros) {
  const auto zeros = on_device(stream_, std::vector<float>(std::size_t(kHeadsKv * d())));
  const auto appended = on_device(stream_, std::vector<std::int32_t>{1});
  for (const CacheType type : types()) {
    const Cache cache = make_cache(type, type, {1, 1}, 1);
    append(zeros.data(), zeros.data(), appended.data(), cache.view);
    EXPECT_EQ(read(type, cache.view.k + cache.view.k_stride, 1), std::vector<float>(std::size_t(d()))) << name(type);
  }
}

INSTANTIATE_TEST_SUITE_P(HeadSizes, CudaCache, testing::Values(8, 64, 80, 96, 128));

}  // namespace
}  // namespace fastkv::test
