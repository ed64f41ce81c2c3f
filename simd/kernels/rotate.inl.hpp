// Prefill's int8 operands: blocks of 64 inputs rotated by a Hadamard transform, then rounded with one scale a wide
// group.
//
// The transform multiplies by the 64 × 64 matrix H[i][j] = (−1)^popcount(i & j), six rounds of sums and differences of
// elements whose indices differ in one bit. Hᵀ H = 64: activations are multiplied by H, weights by H / 64.
#pragma once

#include "simd/kernels/quantize.inl.hpp"

namespace fastkv::simd {
namespace {

/// (a, b) <- (a + b, a − b).
FASTKV_INLINE void butterfly(F32& a, F32& b) {
  const F32 sum = a + b;
  b = a - b;
  a = sum;
}

/// Lane i <- x[i] + x[i ^ Bit] where i has no Bit, x[i ^ Bit] − x[i] where it has.
template <int Bit>
FASTKV_INLINE F32 butterfly_lanes(F32 x) {
  alignas(64) static constexpr struct Signs {
    float lane[kLanes];
    constexpr Signs() : lane() {
      for (int i = 0; i < kLanes; ++i) lane[i] = i & Bit ? -1.f : 1.f;
    }
  } kSigns;
  return fma(x, F32::load(kSigns.lane), swap_lanes<Bit>(x));
}

static_assert(kWideGroup % kRotation == 0);

void rotate_i8(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums) {
  alignas(64) float rotated[kWideGroup];
  const I32 ones = I32::set(0x01010101);
  for (std::int64_t i = 0; i < k; i += kWideGroup) {
    F32 tops = F32::set(0.f);
    int n = 0;
    for (; n < kWideGroup && i + n < k; n += kRotation) {
      const Group a = load_group(x + i + n, k - i - n);
      const Group b = k - i - n > 32 ? load_group(x + i + n + 32, k - i - n - 32) : Group{F32::set(0.f), F32::set(0.f)};
      F32 v[4] = {a.lo, a.hi, b.lo, b.hi};
      butterfly(v[0], v[1]), butterfly(v[2], v[3]);
      butterfly(v[0], v[2]), butterfly(v[1], v[3]);
      unroll<4>([&](auto j) __attribute__((always_inline)) {
        v[j] = butterfly_lanes<8>(butterfly_lanes<4>(butterfly_lanes<2>(butterfly_lanes<1>(v[j]))));
        v[j].store(rotated + n + j * kLanes);
      });
      F32 size[4];
      unroll<4>([&](auto j) __attribute__((always_inline)) {
        size[j] = abs(v[j]);
        // Two products with codes up to 255 fit into 16 bits if neighbours of one sign add up to 128 at most: 127 and
        // what rounding adds. Steps grow by about a fifth; weights of 7 bits would double theirs.
        if constexpr (kPairsIn16Bits) size[j] = max(size[j], abs(v[j] + swap_lanes<1>(v[j])));
      });
      tops = max(tops, max(max(size[0], size[1]), max(size[2], size[3])));
    }
    const float top = max(tops);
    const bool some = top >= kSmallestMax;
    *scale++ = some ? top / 127.f : 0.f;
    const F32 inverse = F32::set(some ? 127.f / top : 0.f);
    I32 fours = I32::set(0);  // sums of four neighbours
    for (int j = 0; j < n; j += kRotation, q += kRotation) {
      const auto level = [&](int part) __attribute__((always_inline)) {
        return to_int(F32::load(rotated + j + part * kLanes) * inverse);
      };
      const I32 bytes = narrow(level(0), level(1), level(2), level(3));
      bytes.store(q);
      fours = dot_i8<false>(fours, ones, bytes);
    }
    *sums++ = sum(fours);
  }
}

/// Rotates and rounds the weights of one panel, which come 32 inputs at a time: the transform runs across inputs, so
/// that each of the 16 lanes is a row of its own.
class PanelRotation {
 public:
  PanelRotation(std::uint8_t* q, float* scale) : q_(q), scale_(scale) {}

  /// weights [32][16]: the rounds among 8 neighbouring inputs.
  [[gnu::noinline]] void add(const float* weights) {
    for (int i = 0; i < 32; i += 8) transform8<1>(weights + i * kLanes, weights_ + (n_ + i) * kLanes);
    n_ += 32;
    if (n_ == kWideGroup) finish();
  }
  /// What has come since the last full group, if anything, padded with zeros.
  [[gnu::noinline]] void finish() {
    if (n_ == 0) return;
    if (n_ % kRotation) {
      for (int i = 0; i < 32; ++i) F32::set(0.f).store(weights_ + (n_ + i) * kLanes);
      n_ += 32;
    }
    for (int block = 0; block < n_; block += kRotation) {
      for (int i = 0; i < 8; ++i) transform8<8>(weights_ + (block + i) * kLanes, weights_ + (block + i) * kLanes);
    }
    for (int from = 0; from < n_; from += kWideGroup) round(from, n_ - from < kWideGroup ? n_ : from + kWideGroup);
    n_ = 0;
  }

 private:
  /// Three rounds over in[0], in[Stride] … in[7·Stride] (vectors), to the same places of `out`.
  template <int Stride>
  FASTKV_INLINE static void transform8(const float* in, float* out) {
    F32 v[8];
    unroll<8>([&](auto j) __attribute__((always_inline)) { v[j] = F32::load(in + j * Stride * kLanes); });
    unroll<4>([&](auto j) __attribute__((always_inline)) { butterfly(v[2 * j], v[2 * j + 1]); });
    unroll<4>([&](auto j)
                  __attribute__((always_inline)) { butterfly(v[j / 2 * 4 + j % 2], v[j / 2 * 4 + j % 2 + 2]); });
    unroll<4>([&](auto j) __attribute__((always_inline)) { butterfly(v[j], v[j + 4]); });
    unroll<8>([&](auto j) __attribute__((always_inline)) { v[j].store(out + j * Stride * kLanes); });
  }

  /// The inputs from … to − 1 are a group.
  FASTKV_INLINE void round(int from, int to) {
    F32 tops[4];  // of every fourth input: one chain of maxima would take longer than all the rest
    unroll<4>([&](auto j) __attribute__((always_inline)) { tops[j] = F32::set(0.f); });
    for (int i = from; i < to; i += 4) {
      unroll<4>([&](auto j) __attribute__((always_inline)) {
        tops[j] = max(tops[j], abs(F32::load(weights_ + (i + j) * kLanes)));
      });
    }
    const F32 top = max(max(tops[0], tops[1]), max(tops[2], tops[3]));
    const F32 smallest = F32::set(kSmallestMax * kRotation);
    // Rounded up to 22 significant bits (see kFloatBias), so that no level exceeds kWeightZero − 1.
    const I32 up = as_int(top / F32::set(float(kWeightZero - 1))) + I32::set(3);
    const F32 step = keep_if_ge(as_float(up & I32::set(~3)), top, smallest);
    (step * F32::set(1.f / kRotation)).store(scale_);
    scale_ += kLanes;
    const F32 inverse = keep_if_ge(F32::set(1.f) / max(step, smallest), top, smallest);
    const F32 bias = F32::set(0x1.8p23f + kWeightZero);  // x + bias has the rounded x + zero in its low byte
    for (int i = from; i < to; i += 4, q_ += 4 * kLanes) {
      const auto code = [&](int b) __attribute__((always_inline)) {
        return as_int(fma(F32::load(weights_ + (i + b) * kLanes), inverse, bias));
      };
      const I32 four = code(0) + shift_left<8>(code(1)) + shift_left<16>(code(2)) + shift_left<24>(code(3));
      (four - I32::set(int(0x4b400000u + (0x4b400000u << 8)))).store(q_);  // the bias, as far as it is not shifted out
    }
  }

  std::uint8_t* q_;
  float* scale_;
  int n_ = 0;  ///< inputs in weights_
  alignas(64) float weights_[kWideGroup * kLanes];
};

}  // namespace
}  // namespace fastkv::simd
