// Random weight panels of every packing, written byte by byte from the layout description of simd/packed.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "simd/packed.hpp"
#include "simd/support/kernel_test.hpp"
#include "simd/support/narrow.hpp"

namespace fastkv::test {

inline constexpr std::array<simd::Packing, simd::kPackings> kPackings = {
    simd::Packing::q4_0,   simd::Packing::q4_1, simd::Packing::q5_0, simd::Packing::q5_1, simd::Packing::q8_0,
    simd::Packing::q3_k,   simd::Packing::q4_k, simd::Packing::q5_k, simd::Packing::q6_k, simd::Packing::iq4_nl,
    simd::Packing::iq4_xs, simd::Packing::f32,  simd::Packing::f16,  simd::Packing::bf16,
};
inline const char* name(simd::Packing p) {
  static const char* const kNames[] = {"q4_0", "q4_1", "q5_0",   "q5_1",   "q8_0", "q3_k", "q4_k",
                                       "q5_k", "q6_k", "iq4_nl", "iq4_xs", "f32",  "f16",  "bf16"};
  return kNames[int(p)];
}
inline bool is_float(simd::Packing p) { return p >= simd::Packing::f32; }
inline bool is_256(simd::Packing p) {
  using enum simd::Packing;
  return p == q3_k || p == q4_k || p == q5_k || p == q6_k || p == iq4_xs;
}

/// A panel and what it means: w = scale·(q − zero) − min in float32, in ggml's order of operations.
struct Panel {
  simd::Packing packing;
  std::int64_t k;                   ///< inputs
  std::vector<std::uint8_t> bytes;  ///< the packed form
  std::vector<int> q;               ///< [k][16]
  std::vector<float> scale, min;    ///< [k][16]: of each input
  std::vector<float> w;             ///< [k][16]
  std::vector<double> magnitude;    ///< [k][16]: |scale·(q − zero)| + |min|
};

/// Codes at random, or at both ends of their range only.
enum class Codes { random, extreme };

inline const int kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// Writes the planes of 32 inputs; q[i][r] are the codes (for iq4: the level's index).
inline void write_planes(simd::Packing p, const int (&q)[32][16], std::vector<std::uint8_t>& out) {
  using enum simd::Packing;
  const auto append = [&](auto&& byte_at, int vectors) {
    for (int v = 0; v < vectors; ++v) {
      for (int r = 0; r < 16; ++r) {
        for (int b = 0; b < 4; ++b) out.push_back(std::uint8_t(byte_at(v, r, b)));
      }
    }
  };
  const int low_bits = p == q3_k ? 2 : 4;
  if (p == q8_0) {
    append([&](int j, int r, int b) { return q[4 * j + b][r]; }, 8);
    return;
  }
  if (p == q6_k) {
    append(
        [&](int v, int r, int b) {
          const int first = v / 3 * 16, i = v % 3;
          return q[first + 4 * i + b][r] | (q[first + 12 + b][r] >> (4 - 2 * i) & 3) << 6;
        },
        6);
    return;
  }
  if (p != q3_k) {
    append([&](int j, int r, int b) { return (q[4 * j + b][r] & 15) | (q[16 + 4 * j + b][r] & 15) << 4; }, 4);
  }
  if (p == q3_k) {
    append(
        [&](int t, int r, int b) {
          int byte = 0;
          for (int i = 0; i < 4; ++i) byte |= (q[4 * (4 * t + i) + b][r] & 3) << 2 * i;
          return byte;
        },
        2);
  }
  if (p == q3_k || p == q5_0 || p == q5_1 || p == q5_k) {
    append(
        [&](int, int r, int b) {
          int byte = 0;
          for (int j = 0; j < 8; ++j) byte |= (q[4 * j + b][r] >> low_bits & 1) << j;
          return byte;
        },
        1);
  }
}

inline Panel make_panel(simd::Packing packing, std::int64_t k, std::mt19937& random, Codes codes = Codes::random) {
  using enum simd::Packing;
  const auto integer = [&](int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(random); };
  const auto put_u16 = [](std::vector<std::uint8_t>& out, std::uint16_t v) {
    out.push_back(std::uint8_t(v & 255)), out.push_back(std::uint8_t(v >> 8));
  };
  // An 11-bit integer times a power of two: exactly a half, with every kind of significand.
  const auto half = [&](bool positive) {
    const int significand = integer(1024, 2047);
    return to_half((positive || integer(0, 1) ? 1 : -1) * std::ldexp(significand, integer(-18, -13)));
  };
  Panel panel{packing, k, {}, {}, {}, {}, {}, {}};
  const auto add_weight = [&](int q, float scale, int zero, float min) {
    const float product = scale * float(q - zero);
    panel.q.push_back(q), panel.scale.push_back(scale), panel.min.push_back(min);
    panel.w.push_back(product - min);
    panel.magnitude.push_back(std::abs(double(product)) + std::abs(double(min)));
  };
  if (is_float(packing)) {
    for (std::int64_t i = 0; i < k * 16; ++i) {
      const float x = std::uniform_real_distribution<float>(-1, 1)(random);
      if (packing == f32) {
        std::uint8_t raw[4];
        std::memcpy(raw, &x, 4);
        panel.bytes.insert(panel.bytes.end(), raw, raw + 4);
        add_weight(1, x, 0, 0);
      } else if (packing == f16) {
        put_u16(panel.bytes, to_half(x)), add_weight(1, float(half_value(to_half(x))), 0, 0);
      } else {
        put_u16(panel.bytes, to_bf16(x)), add_weight(1, bf16_value(to_bf16(x)), 0, 0);
      }
    }
    return panel;
  }
  const bool affine = packing == q4_1 || packing == q5_1 || packing == q4_k || packing == q5_k;
  const bool levels = packing == iq4_nl || packing == iq4_xs;
  const int top = packing == q8_0                                         ? 255
                  : packing == q6_k                                       ? 63
                  : packing == q5_0 || packing == q5_1 || packing == q5_k ? 31
                  : packing == q3_k                                       ? 7
                                                                          : 15;
  const int zero = packing == q4_0             ? 8
                   : packing == q5_0           ? 16
                   : packing == q8_0 || levels ? 128
                   : packing == q3_k           ? 4
                   : packing == q6_k           ? 32
                                               : 0;
  const int block = is_256(packing) ? 256 : 32;
  const int part = packing == q3_k || packing == q6_k ? 16 : 32;
  for (std::int64_t b = 0; b < k / block; ++b) {
    const auto block_begin = std::ptrdiff_t(panel.bytes.size());
    float d[16], m[16];
    for (float& x : d) {
      const std::uint16_t h = half(false);
      put_u16(panel.bytes, h), x = float(half_value(h));
    }
    for (float& x : m) {
      const std::uint16_t h = half(false);
      if (affine) put_u16(panel.bytes, h);
      x = affine ? float(half_value(h)) : 0;
    }
    int sc[16][16], mn[8][16];
    const bool big = block == 256;
    for (int g = 0; big && g < 256 / part; ++g) {
      for (int r = 0; r < 16; ++r) {
        sc[g][r] = packing == q6_k ? integer(-128, 127) : affine ? integer(0, 63) : integer(-32, 31);
        panel.bytes.push_back(std::uint8_t(sc[g][r]));
      }
    }
    for (int g = 0; big && affine && g < 8; ++g) {
      for (int r = 0; r < 16; ++r) panel.bytes.push_back(std::uint8_t(mn[g][r] = integer(0, 63)));
    }
    for (int g = 0; g < block / 32; ++g) {
      int q[32][16];
      for (int i = 0; i < 32; ++i) {
        for (int r = 0; r < 16; ++r) {
          q[i][r] = codes == Codes::random ? integer(0, top) : integer(0, 1) ? top : 0;
          const float scale = big ? d[r] * float(sc[(32 * g + i) / part][r]) : d[r];
          const float min = !affine ? 0 : big ? m[r] * float(mn[g][r]) : -m[r];
          add_weight(levels ? kIq4[q[i][r]] + 128 : q[i][r], scale, zero, min);
        }
      }
      write_planes(packing, q, panel.bytes);
    }
    if (!affine && b % 2 == 0) {  // d behind all the rest
      const auto begin = panel.bytes.begin() + block_begin;
      std::rotate(begin, begin + 32, panel.bytes.end());
    }
  }
  return panel;
}

/// An input count that this packing allows: several blocks, an odd number.
inline std::int64_t some_k(simd::Packing p) { return is_256(p) ? 768 : 160; }

/// Activations quantised by hand, so that integer kernels are tested apart from quantize_i8.
struct Activations {
  Aligned<std::int8_t> q;     ///< [m, k]
  Aligned<float> scale;       ///< [m, k/32]
  Aligned<std::int32_t> sum;  ///< [m, k/16]
  simd::I8Rows rows() const { return {q.data(), scale.data(), sum.data()}; }
};
inline Activations make_activations(std::int64_t m, std::int64_t k, std::mt19937& random, Codes codes = Codes::random) {
  Activations a{Aligned<std::int8_t>(std::size_t(m * k)), Aligned<float>(std::size_t(m * k / 32)),
                Aligned<std::int32_t>(std::size_t(m * k / 16))};
  std::uniform_int_distribution<int> any(-127, 127), coin(0, 1);
  for (std::size_t i = 0; i < a.q.size(); ++i) {
    a.q[i] = std::int8_t(codes == Codes::random ? any(random) : coin(random) ? 127 : -127);
    a.sum[i / 16] += a.q[i];
  }
  for (float& s : a.scale) s = std::uniform_real_distribution<float>(0.001f, 0.1f)(random);
  return a;
}

}  // namespace fastkv::test
