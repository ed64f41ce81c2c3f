// Packing of keys and values for prefill, and decode over cached rows of every element type.
#include <cmath>
#include <utility>

#include "simd/support/kernel_test.hpp"
#include "simd/support/narrow.hpp"

namespace fastkv::test {
namespace {

using simd::RowType;

class Attention : public KernelTest {
 protected:
  static constexpr RowType kTypes[] = {RowType::f32, RowType::f16, RowType::bf16, RowType::q8_0};

  /// n keys of d values: what was encoded, in panels of 16 whose other lanes hold anything, and what they decode to.
  struct Keys {
    Aligned<float> x;
    std::vector<std::uint8_t> bytes;
    std::vector<double> values;
  };
  Keys make_keys(RowType type, int n, int d) { return make_keys(type, values(std::size_t(n * d)), n, d); }
  Keys make_keys(RowType type, Aligned<float> x, int n, int d) {
    const std::size_t row = simd::row_bytes(type, d);
    Keys keys{std::move(x), std::vector<std::uint8_t>(std::size_t(n + 15) / 16 * 16 * row, 0x33), {}};
    std::vector<std::uint8_t> plain(row);
    for (int j = 0; j < n; ++j) {
      const float* key = keys.x.data() + j * d;
      kernels().encode_key(type, key, d, keys.bytes.data() + std::size_t(j / 16 * 16) * row, j % 16);
      kernels().encode_row(type, key, d, plain.data());
      for (int i = 0; i < d; ++i) keys.values.push_back(decode(type, plain.data(), i));
    }
    return keys;
  }
  /// n positions in blocks, their unused places full of NaN, and what keys and values decode to.
  struct Blocks {
    Aligned<std::uint8_t> bytes;
    std::vector<double> keys, values;
  };
  Blocks make_blocks(RowType k, RowType v, const Aligned<float>& keys, int n, int d) {
    const std::size_t block = simd::cache_block_bytes(k, v, d);
    Blocks made{Aligned<std::uint8_t>(std::size_t(n + simd::kCacheRows - 1) / simd::kCacheRows * block), {}, {}};
    std::fill(made.bytes.begin(), made.bytes.end(), std::uint8_t(0xff));
    const Aligned<float> values = this->values(std::size_t(n * d));
    std::vector<std::uint8_t> plain(simd::row_bytes(k, d));
    for (int j = 0; j < n; ++j) {
      std::uint8_t* const at = made.bytes.data() + std::size_t(j / simd::kCacheRows) * block;
      const int row = j % simd::kCacheRows;
      kernels().encode_key(k, keys.data() + j * d, d, at + simd::key_panel_at(k, d, row), row % simd::kLanes);
      kernels().encode_row(k, keys.data() + j * d, d, plain.data());
      for (int i = 0; i < d; ++i) made.keys.push_back(decode(k, plain.data(), i));
      for (int i = 0; i < d; i += simd::kValueDims) {
        std::uint8_t* const part = at + simd::values_at(k, v, d, row, i);
        const int dims = simd::value_dims(d, i);
        kernels().encode_row(v, values.data() + j * d + i, dims, part);
        for (int c = 0; c < dims; ++c) made.values.push_back(decode(v, part, c));
      }
    }
    return made;
  }
  Blocks make_blocks(RowType type, int n, int d) { return make_blocks(type, type, values(std::size_t(n * d)), n, d); }
  bool narrows(RowType k, RowType v, int d) const {
    return kernels().attend_rows_bf16 != kernels().attend_rows && k == v && d % 16 == 0 &&
           (k == RowType::f16 || k == RowType::bf16);
  }
  /// A value of a row as bfloat16 dot products take it: of float16 nearest, halves away from zero, then zero below
  /// 2^-14.
  static double narrowed(RowType type, double x) {
    if (type == RowType::bf16 || x == 0) return x;
    const double unit = std::ldexp(1.0, std::max(std::ilogb(x), -14) - 7);
    const double rounded = std::floor(std::abs(x) / unit + 0.5) * unit;
    return rounded < 0x1p-14 ? 0 : std::copysign(rounded, x);
  }
  void rows_are_attended_to(bool narrow);
  static double decode(RowType type, const std::uint8_t* row, int i) {
    std::uint16_t half;
    float word;
    switch (type) {
      case RowType::f32:
        std::memcpy(&word, row + 4 * i, 4);
        return word;
      case RowType::f16:
        std::memcpy(&half, row + 2 * i, 2);
        return half_value(half);
      case RowType::bf16:
        std::memcpy(&half, row + 2 * i, 2);
        return bf16_value(half);
      case RowType::q8_0:
        break;
    }
    std::memcpy(&half, row + i / 32 * 34, 2);
    return half_value(half) * std::int8_t(row[i / 32 * 34 + 2 + i % 32]);
  }
};

TEST_P(Attention, PackKeys) {
  for (const int d : {2, 16, 30, 64, 80, 96, 128}) {
    for (const int n : {1, 3, 15, 16}) {
      SCOPED_TRACE(testing::Message() << n << " keys of " << d);
      const int ld = d + 5, d32 = (d + 31) / 32 * 32;
      const Aligned<float> keys = values(std::size_t((n - 1) * ld + d));
      Aligned<float> panel(std::size_t(d * 16));
      Aligned<std::uint16_t> narrow(std::size_t(d32 * 16));
      std::fill(panel.begin(), panel.end(), 9.f), std::fill(narrow.begin(), narrow.end(), std::uint16_t(9));
      kernels().pack_keys_f32(keys.data(), ld, n, d, panel.data());
      kernels().pack_keys_bf16(keys.data(), ld, n, d, narrow.data());
      for (int i = 0; i < d32; ++i) {
        for (int r = 0; r < 16; ++r) {
          const float expected = r < n && i < d ? keys[std::size_t(r * ld + i)] : 0;
          if (i < d) {
            ASSERT_EQ(panel[std::size_t(i * 16 + r)], expected) << i << ' ' << r;
          }
          ASSERT_EQ(narrow[std::size_t(i / 2 * 32 + r * 2 + i % 2)], to_bf16(expected)) << i << ' ' << r;
        }
      }
    }
  }
}

TEST_P(Attention, PackValues) {
  for (const int d : {1, 16, 30, 64, 80, 96}) {
    for (const int n : {1, 2, 15, 16, 17, 32}) {
      SCOPED_TRACE(testing::Message() << n << " values of " << d);
      const int ld = d + 3, n_pad = (n + 31) / 32 * 32, columns = (d + 15) / 16;
      const Aligned<float> v = values(std::size_t((n - 1) * ld + d));
      Aligned<float> out(std::size_t(columns * n_pad * 16));
      Aligned<std::uint16_t> narrow(out.size());
      std::fill(out.begin(), out.end(), 9.f), std::fill(narrow.begin(), narrow.end(), std::uint16_t(9));
      kernels().pack_values_f32(v.data(), ld, n, n_pad, d, out.data());
      kernels().pack_values_bf16(v.data(), ld, n, n_pad, d, narrow.data());
      for (int c = 0; c < columns; ++c) {
        for (int j = 0; j < n_pad; ++j) {
          for (int r = 0; r < 16; ++r) {
            const float expected = j < n && c * 16 + r < d ? v[std::size_t(j * ld + c * 16 + r)] : 0;
            ASSERT_EQ(out[std::size_t((c * n_pad + j) * 16 + r)], expected);
          }
        }
        // The keys of each 32 are there in some order.
        for (int j0 = 0; j0 < n_pad; j0 += 32) {
          std::vector<std::vector<std::uint16_t>> rows(32), expected(32);
          for (int j = j0; j < j0 + 32; ++j) {
            for (int r = 0; r < 16; ++r) {
              rows[std::size_t(j - j0)].push_back(narrow[std::size_t((c * n_pad / 2 + j / 2) * 32 + r * 2 + j % 2)]);
              expected[std::size_t(j - j0)].push_back(
                  to_bf16(j < n && c * 16 + r < d ? v[std::size_t(j * ld + c * 16 + r)] : 0));
            }
          }
          std::sort(rows.begin(), rows.end()), std::sort(expected.begin(), expected.end());
          ASSERT_EQ(rows, expected);
        }
      }
    }
  }
}

TEST_P(Attention, KeysGiveScores) {
  for (const RowType type : kTypes) {
    for (const int d : {32, 42, 64, 80, 128}) {
      if (type == RowType::q8_0 && d % 32) continue;
      for (const int group : {1, 3, 4, 8}) {
        for (const int n : {1, 2, 15, 16, 17, 32, 33, 50}) {
          SCOPED_TRACE(testing::Message() << "type " << int(type) << " d " << d << " group " << group << " n " << n);
          const Keys keys = make_keys(type, n, d);
          const Aligned<float> q = values(std::size_t(group * d));
          const int ldo = n + 2;
          std::vector<float> out(std::size_t(group * ldo), 777.f);
          const float scale = 0.09f;
          kernels().attend_keys(type, q.data(), group, keys.bytes.data(), n, d, scale, out.data(), ldo);
          for (int g = 0; g < group; ++g) {
            for (int j = 0; j < ldo; ++j) {
              const float actual = out[std::size_t(g * ldo + j)];
              if (j >= n) {
                ASSERT_EQ(actual, 777.f);
                continue;
              }
              double sum = 0, magnitude = 0;
              for (int i = 0; i < d; ++i) {
                const double term = double(scale) * q[std::size_t(g * d + i)] * keys.values[std::size_t(j * d + i)];
                sum += term, magnitude += std::abs(term);
              }
              // d fused multiply-adds (or products and sums), of q8_0 one more per 32, the scale.
              ASSERT_TRUE(close(actual, sum, (2 * d + 2) * kEps * magnitude)) << g << ' ' << j;
            }
          }
        }
      }
    }
  }
}

TEST_P(Attention, AScoreDependsOnItsOwnRowOnly) {
  for (const RowType type : kTypes) {
    const int d = 64, n = 41, group = 5;
    const Keys keys = make_keys(type, n, d);
    const Aligned<float> q = values(std::size_t(group * d));
    std::vector<float> all(std::size_t(group * n));
    kernels().attend_keys(type, q.data(), group, keys.bytes.data(), n, d, 0.125f, all.data(), n);
    std::vector<std::uint8_t> panel(16 * simd::row_bytes(type, d));
    for (int g = 0; g < group; ++g) {
      for (int j = 0; j < n; ++j) {
        float one;
        kernels().encode_key(type, keys.x.data() + j * d, d, panel.data(), 0);
        kernels().attend_keys(type, q.data() + g * d, 1, panel.data(), 1, d, 0.125f, &one, 1);
        ASSERT_EQ(one, all[std::size_t(g * n + j)]) << "type " << int(type) << " head " << g << " key " << j;
      }
    }
  }
}

/// Scores, weights and sums against double, for types, sizes and groups around every width. `rising`: scores that grow
/// by 5 a key pass the running maximum again and again; `sinking`: only the first ones count.
void Attention::rows_are_attended_to(bool narrow) {
  enum Course { level, rising, sinking };
  constexpr std::pair<RowType, RowType> kPairs[] = {{RowType::f32, RowType::f32},   {RowType::f16, RowType::f16},
                                                    {RowType::bf16, RowType::bf16}, {RowType::q8_0, RowType::q8_0},
                                                    {RowType::f16, RowType::q8_0},  {RowType::q8_0, RowType::f32}};
  for (const auto& [k_type, v_type] : kPairs) {
    for (const int d : {32, 42, 64, 80, 96, 128, 176}) {
      if ((k_type == RowType::q8_0 || v_type == RowType::q8_0) && d % 32) continue;
      const bool rounds = narrow && narrows(k_type, v_type, d);
      const auto taken = [&](RowType type, double x) { return rounds ? narrowed(type, x) : x; };
      for (const int group : {1, 3, 4, 8}) {
        for (const int n : {1, 2, 15, 16, 17, 31, 32, 33, 49, 100}) {
          for (const Course course : {level, rising, sinking}) {
            SCOPED_TRACE(testing::Message() << "types " << int(k_type) << ' ' << int(v_type) << " d " << d << " group "
                                            << group << " n " << n << " course " << int(course));
            Aligned<float> keys = values(std::size_t(n * d));
            if (course != level)  // the first dim makes the course, the others what they are
              for (int j = 0; j < n; ++j) keys[std::size_t(j * d)] = float(course == rising ? j : n - j) / 2;
            const Blocks cache = make_blocks(k_type, v_type, keys, n, d);
            Aligned<float> q = values(std::size_t(group * d));
            for (int g = 0; course != level && g < group; ++g) q[std::size_t(g * d)] = 20;
            const float scale = 0.5f;
            const double blocks =
                (n + simd::kCacheRows - 1) / simd::kCacheRows;  // at each the sums may be scaled: 5 eps
            // of a weight: float32's, or the polynomial's and the rounding to bfloat16
            const double weight_error = rounds ? 0x1p-8 + 8e-5 : 4 * kEps;
            std::vector<float> out(std::size_t(group * d), 777.f), max(std::size_t(group), 777.f), sums = max;
            (narrow ? kernels().attend_rows_bf16 : kernels().attend_rows)({k_type, v_type, cache.bytes.data(), n, d},
                                                                          q.data(), group, scale, out.data(),
                                                                          max.data(), sums.data());
            std::vector<double> expected, bounds;
            for (int g = 0; g < group; ++g) {
              std::vector<double> weight, error;
              double most = -INFINITY, total = 0, total_error = 0;
              const double m = max[std::size_t(g)];
              for (int j = 0; j < n; ++j) {
                double s = 0, magnitude = 0;
                for (int i = 0; i < d; ++i) {
                  const float x = q[std::size_t(g * d + i)];
                  const double scaled = rounds ? bf16_value(to_bf16(scale * x)) : double(scale) * x;
                  const double term = scaled * taken(k_type, cache.keys[std::size_t(j * d + i)]);
                  s += term, magnitude += std::abs(term);
                }
                most = std::max(most, s);
                const double p = std::exp(s - m), slip = (2 * d + 2) * kEps * magnitude;
                weight.push_back(p);
                error.push_back(p * (slip + weight_error + (std::abs(s - m) + 5 * blocks + rounds * 112) * kEps) +
                                1e-37);
                total += p, total_error += error.back();
              }
              const double slip = 1e-4 * (1 + std::abs(most));
              ASSERT_LE(m, most + slip);
              ASSERT_GE(m + simd::kScoreSlack, most - slip);
              ASSERT_TRUE(close(sums[std::size_t(g)], total, total_error + (blocks + 5) * kEps * total)) << g;
              for (int i = 0; i < d; ++i) {
                double sum = 0, bound = 0;
                for (int j = 0; j < n; ++j) {
                  const double value = taken(v_type, cache.values[std::size_t(j * d + i)]);
                  sum += weight[std::size_t(j)] * value;
                  bound += (error[std::size_t(j)] + weight[std::size_t(j)] * (n + 2) * kEps) * std::abs(value);
                }
                expected.push_back(sum), bounds.push_back(bound);
              }
            }
            expect_close(out, expected, bounds);
          }
        }
      }
    }
  }
}

TEST_P(Attention, RowsAreAttendedTo) { rows_are_attended_to(false); }
TEST_P(Attention, RowsAreAttendedToInBfloat16) { rows_are_attended_to(true); }

// A single key: its score is the maximum, its weight 1, and its value comes back as it was rounded. Every float16 but
// infinities and NaN, which a cache does not hold.
TEST_P(Attention, Bfloat16TakesHalvesAsTheyRound) {
  const int d = 64;
  if (!narrows(RowType::f16, RowType::f16, d)) GTEST_SKIP() << "this level has no bfloat16 dot products";
  Aligned<std::uint8_t> block(simd::cache_block_bytes(RowType::f16, RowType::f16, d));
  Aligned<float> q(d);
  for (int first = 0; first < 65536; first += d) {
    if ((first & 0x7fff) >= 0x7c00) continue;
    for (int i = 0; i < d; ++i) {
      const std::uint16_t half = std::uint16_t(first + i);
      std::memcpy(block.data() + i * 2 * simd::kLanes, &half, 2);
      std::memcpy(block.data() + simd::values_at(RowType::f16, RowType::f16, d, 0, 0) + 2 * i, &half, 2);
    }
    const int one = integer(0, d - 1);
    q[std::size_t(one)] = 3 * 0x1p20f;
    float out[d], max, sum;
    kernels().attend_rows_bf16({RowType::f16, RowType::f16, block.data(), 1, d}, q.data(), 1, 0.5f, out, &max, &sum);
    q[std::size_t(one)] = 0;
    ASSERT_EQ(sum, 1);
    ASSERT_EQ(max, 1.5 * 0x1p20 * narrowed(RowType::f16, half_value(std::uint16_t(first + one)))) << first + one;
    for (int i = 0; i < d; ++i)
      ASSERT_EQ(out[i], narrowed(RowType::f16, half_value(std::uint16_t(first + i)))) << first + i;
  }
}

// Scores that pass the running maximum at different keys for different heads.
TEST_P(Attention, AHeadDependsOnItselfOnly) {
  for (const auto kernel : {kernels().attend_rows, kernels().attend_rows_bf16})
    for (const float scale : {0.25f, 0.5f, 1.f})
      for (const RowType type : kTypes) {
        const int d = 64, n = 100, group = 7;
        const Blocks cache = make_blocks(type, n, d);
        const Aligned<float> q = values(std::size_t(group * d));
        const auto attend = [&](const float* heads, int count, std::vector<float>& out) {
          out.assign(std::size_t(count * (d + 2)), 777.f);
          kernel({type, type, cache.bytes.data(), n, d}, heads, count, scale, out.data(), out.data() + count * d,
                 out.data() + count * (d + 1));
        };
        std::vector<float> all, one;
        attend(q.data(), group, all);
        for (int g = 0; g < group; ++g) {
          attend(q.data() + g * d, 1, one);
          for (int i = 0; i < d; ++i) ASSERT_EQ(one[std::size_t(i)], all[std::size_t(g * d + i)]) << g << ' ' << i;
          ASSERT_EQ(one[std::size_t(d)], all[std::size_t(group * d + g)]) << g;
          ASSERT_EQ(one[std::size_t(d + 1)], all[std::size_t(group * (d + 1) + g)]) << g;
        }
      }
}

// What is read next may lie anywhere, or nowhere: it is fetched, not read.
TEST_P(Attention, WhatIsReadNextIsOnlyFetched) {
  const FetchesAhead scope(true);
  const int d = 64, n = 40;
  const Blocks cache = make_blocks(RowType::f16, n, d);
  const Aligned<float> q = values(d);
  for (const auto kernel : {kernels().attend_rows, kernels().attend_rows_bf16}) {
    std::vector<float> out[2] = {std::vector<float>(d), std::vector<float>(d)};
    float max[2], sums[2];
    const void* const nowhere = reinterpret_cast<const void*>(std::uintptr_t{64});
    for (int i = 0; i < 2; ++i)
      kernel({RowType::f16, RowType::f16, cache.bytes.data(), n, d, i ? nowhere : nullptr}, q.data(), 1, 0.125f,
             out[i].data(), max + i, sums + i);
    EXPECT_EQ(out[0], out[1]);
    EXPECT_EQ(max[0], max[1]);
    EXPECT_EQ(sums[0], sums[1]);
  }
}

TEST_P(Attention, RowsAreDecoded) {
  for (const RowType type : kTypes) {
    for (const int d : {1, 16, 30, 64, 80, 96}) {
      if (type == RowType::q8_0 && d % 32) continue;
      const Aligned<float> x = values(std::size_t(d));
      Aligned<std::uint8_t> row(simd::row_bytes(type, d));
      kernels().encode_row(type, x.data(), d, row.data());
      std::vector<float> out(std::size_t(d + 1), 777.f);
      kernels().decode_row(type, row.data(), d, out.data());
      for (int i = 0; i < d; ++i) ASSERT_EQ(out[std::size_t(i)], decode(type, row.data(), i)) << i;
      ASSERT_EQ(out.back(), 777.f) << "written past the row";
    }
  }
}

FASTKV_EVERY_ISA(Attention);

}  // namespace
}  // namespace fastkv::test
