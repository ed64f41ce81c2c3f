// Quantisation: codes and scales for each format, packed into ggml's blocks.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.hpp"
#include "core/quant_blocks.hpp"

namespace fastkv {
namespace {

void put_half(std::uint8_t* p, float value) {
  const std::uint16_t bits = f32_to_f16(value);
  std::memcpy(p, &bits, sizeof bits);
}

/// What a reader of put_half(value) sees.
float stored(float value) { return f16_to_f32(f32_to_f16(value)); }

float inverse(float d) { return d != 0 ? 1 / d : 0; }

/// The integer nearest to v, inside [low, high].
int nearest(float v, int low, int high) { return int(std::lrint(std::clamp(v, float(low), float(high)))); }

/// The value of largest magnitude, with its sign.
float signed_max(const float* x, int n) {
  float max = 0;
  for (int i = 0; i < n; ++i) {
    if (std::abs(x[i]) > std::abs(max)) max = x[i];
  }
  return max;
}

/// Two codes per byte: the first n in the low nibbles, the next n in the high ones.
void put_nibbles(const int* code, std::uint8_t* qs, int n) {
  for (int i = 0; i < n; ++i) qs[i] = std::uint8_t((code[i] & 15) | (code[n + i] & 15) << 4);
}

/// The fifth bits of 32 codes.
void put_fifth_bits(const int* code, std::uint8_t* qh) {
  std::memset(qh, 0, 4);
  for (int i = 0; i < 32; ++i) qh[i / 8] = std::uint8_t(qh[i / 8] | ((code[i] >> 4) & 1) << (i % 8));
}

/// Codes of ggml's symmetric formats: the extreme value takes the code -levels/2, and codes round half up.
float symmetric_codes(const float* x, int levels, int* code) {
  const float d = signed_max(x, 32) / float(-levels / 2);
  const float id = inverse(d);
  for (int i = 0; i < 32; ++i) code[i] = std::min(levels - 1, int(x[i] * id + float(levels / 2) + 0.5f));
  return d;
}

/// Codes of ggml's formats with a minimum.
float affine_codes(const float* x, int levels, int* code, float& min) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  min = *low;
  const float d = (*high - *low) / float(levels - 1);
  const float id = inverse(d);
  for (int i = 0; i < 32; ++i) code[i] = std::min(levels - 1, int((x[i] - min) * id + 0.5f));
  return d;
}

void pack_q4_0(const float* x, std::uint8_t* block) {
  int code[32];
  put_half(block, symmetric_codes(x, 16, code));
  put_nibbles(code, block + 2, 16);
}

void pack_q4_1(const float* x, std::uint8_t* block) {
  int code[32];
  float min = 0;
  put_half(block, affine_codes(x, 16, code, min));
  put_half(block + 2, min);
  put_nibbles(code, block + 4, 16);
}

void pack_q5_0(const float* x, std::uint8_t* block) {
  int code[32];
  put_half(block, symmetric_codes(x, 32, code));
  put_fifth_bits(code, block + 2);
  put_nibbles(code, block + 6, 16);
}

void pack_q5_1(const float* x, std::uint8_t* block) {
  int code[32];
  float min = 0;
  put_half(block, affine_codes(x, 32, code, min));
  put_half(block + 2, min);
  put_fifth_bits(code, block + 4);
  put_nibbles(code, block + 8, 16);
}

void pack_q8_0(const float* x, std::uint8_t* block) {
  const float d = std::abs(signed_max(x, 32)) / 127;
  const float id = inverse(d);
  put_half(block, d);
  // Halves away from zero, as ggml rounds here.
  for (int i = 0; i < 32; ++i) block[2 + i] = std::uint8_t(std::int8_t(std::round(x[i] * id)));
}

/// The scale s that minimises Σ (x - s·q)² over q = round(x/s) in [-levels/2, levels/2), among candidates that map the
/// extreme value near the end of the range, each followed by the least-squares scale for its codes.
float symmetric_scale(const float* x, int n, int levels) {
  const float max = signed_max(x, n);
  if (max == 0) return 0;
  float best = 0, best_gain = -1;
  for (int step = -2; step <= 2; ++step) {
    const float is = -(float(levels / 2) + 0.25f * float(step)) / max;
    float xq = 0, qq = 0;
    for (int i = 0; i < n; ++i) {
      const auto q = float(nearest(x[i] * is, -levels / 2, levels / 2 - 1));
      xq += x[i] * q;
      qq += q * q;
    }
    const float gain = qq > 0 ? xq * xq / qq : 0;  // Σx² minus the error
    if (gain > best_gain) {
      best_gain = gain;
      best = qq > 0 ? xq / qq : 0;
    }
  }
  return best;
}

/// 16 scales (of 16 weights each) as integers in [-limit, limit) times a float16 factor, which is returned as stored.
float share_factor(const float* scale, int n, int limit, int* integer) {
  const float max = signed_max(scale, n);
  const float d = stored(max / float(-limit));
  const float id = inverse(d);
  for (int j = 0; j < n; ++j) integer[j] = nearest(scale[j] * id, -limit, limit - 1);
  return d;
}

void pack_q3_k(const float* x, std::uint8_t* block) {
  float scale[16];
  int integer[16];
  for (int j = 0; j < 16; ++j) scale[j] = symmetric_scale(x + 16 * j, 16, 8);
  const float d = share_factor(scale, 16, 32, integer);
  std::memset(block, 0, 110);
  std::uint8_t *hmask = block, *qs = block + 32, *packed = block + 96;
  put_half(block + 108, d);
  for (int j = 0; j < 16; ++j) {
    const int s = integer[j] + 32;
    packed[j % 8] = std::uint8_t(packed[j % 8] | (s & 15) << (j < 8 ? 0 : 4));
    packed[8 + j % 4] = std::uint8_t(packed[8 + j % 4] | (s >> 4) << (2 * (j / 4)));
  }
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, shift = i % 128 / 32, l = i % 32;
    const int code = nearest(x[i] * inverse(d * float(integer[i / 16])), -4, 3) + 4;
    qs[32 * half + l] = std::uint8_t(qs[32 * half + l] | (code & 3) << (2 * shift));
    hmask[l] = std::uint8_t(hmask[l] | (code >> 2) << (4 * half + shift));
  }
}

/// Scales and minima of eight groups of 32 in 6 bits each, and the codes they give: the first 16 bytes of Q4_K and
/// Q5_K.
void k_codes(const float* x, int levels, std::uint8_t* block, int* code) {
  float scale[8], min[8];
  for (int j = 0; j < 8; ++j) {
    const auto [low, high] = std::minmax_element(x + 32 * j, x + 32 * j + 32);
    min[j] = -std::min(0.0f, *low);  // stored minima are subtracted and cannot be negative
    scale[j] = (std::max(*high, -min[j]) + min[j]) / float(levels - 1);
  }
  const float d = stored(*std::max_element(scale, scale + 8) / 63);
  const float d_min = stored(*std::max_element(min, min + 8) / 63);
  put_half(block, d);
  put_half(block + 2, d_min);
  std::uint8_t* packed = block + 4;
  std::memset(packed, 0, 12);
  for (int j = 0; j < 8; ++j) {
    const int s = nearest(scale[j] * inverse(d), 0, 63), m = nearest(min[j] * inverse(d_min), 0, 63);
    if (j < 4) {
      packed[j] = std::uint8_t(packed[j] | s);
      packed[j + 4] = std::uint8_t(packed[j + 4] | m);
    } else {
      packed[j + 4] = std::uint8_t((s & 15) | (m & 15) << 4);
      packed[j - 4] = std::uint8_t(packed[j - 4] | (s >> 4) << 6);
      packed[j] = std::uint8_t(packed[j] | (m >> 4) << 6);
    }
    const float inv = inverse(d * float(s)), offset = d_min * float(m);
    for (int i = 32 * j; i < 32 * j + 32; ++i) code[i] = nearest((x[i] + offset) * inv, 0, levels - 1);
  }
}

void pack_q4_k(const float* x, std::uint8_t* block) {
  int code[256];
  k_codes(x, 16, block, code);
  for (int p = 0; p < 4; ++p) put_nibbles(code + 64 * p, block + 16 + 32 * p, 32);
}

void pack_q5_k(const float* x, std::uint8_t* block) {
  int code[256];
  k_codes(x, 32, block, code);
  std::memset(block + 16, 0, 32);
  for (int i = 0; i < 256; ++i) block[16 + i % 32] = std::uint8_t(block[16 + i % 32] | (code[i] >> 4) << (i / 32));
  for (int p = 0; p < 4; ++p) put_nibbles(code + 64 * p, block + 48 + 32 * p, 32);
}

void pack_q6_k(const float* x, std::uint8_t* block) {
  float scale[16];
  int integer[16];
  for (int j = 0; j < 16; ++j) scale[j] = symmetric_scale(x + 16 * j, 16, 64);
  const float d = share_factor(scale, 16, 128, integer);
  std::memset(block, 0, 210);
  put_half(block + 208, d);
  for (int j = 0; j < 16; ++j) block[192 + j] = std::uint8_t(std::int8_t(integer[j]));
  std::uint8_t *ql = block, *qh = block + 128;
  for (int j = 0; j < 16; ++j) {
    const float inv = inverse(d * float(integer[j]));
    for (int i = 16 * j; i < 16 * j + 16; ++i) {
      const int half = i / 128, s = i % 128 / 32, l = i % 32;
      const int code = nearest(x[i] * inv, -32, 31) + 32;
      std::uint8_t& low = ql[64 * half + 32 * (s % 2) + l];
      low = std::uint8_t(low | (code & 15) << (4 * (s / 2)));
      qh[32 * half + l] = std::uint8_t(qh[32 * half + l] | (code >> 4) << (2 * s));
    }
  }
}

/// Index of the level nearest to v.
int nearest_level(float v) {
  const auto* above = std::lower_bound(kIq4Levels, kIq4Levels + 16, v);
  const int i = int(above - kIq4Levels);
  if (i == 0) return 0;
  if (i == 16) return 15;
  return v - float(kIq4Levels[i - 1]) < float(kIq4Levels[i]) - v ? i - 1 : i;
}

/// The least-squares scale of 32 weights for IQ4's levels, as symmetric_scale().
float level_scale(const float* x) {
  const float max = signed_max(x, 32);
  if (max == 0) return 0;
  float best = 0, best_gain = -1;
  for (int step = -4; step <= 4; ++step) {
    const float is = float(kIq4Levels[0] + 4 * step) / max;
    float xq = 0, qq = 0;
    for (int i = 0; i < 32; ++i) {
      const auto q = float(kIq4Levels[nearest_level(x[i] * is)]);
      xq += x[i] * q;
      qq += q * q;
    }
    if (xq * xq / qq > best_gain) {  // no level is zero
      best_gain = xq * xq / qq;
      best = xq / qq;
    }
  }
  return best;
}

void put_levels(const float* x, float scale, std::uint8_t* qs) {
  int code[32];
  const float inv = inverse(scale);
  for (int i = 0; i < 32; ++i) code[i] = nearest_level(x[i] * inv);
  put_nibbles(code, qs, 16);
}

void pack_iq4_nl(const float* x, std::uint8_t* block) {
  const float d = stored(level_scale(x));
  put_half(block, d);
  put_levels(x, d, block + 2);
}

void pack_iq4_xs(const float* x, std::uint8_t* block) {
  float scale[8];
  int integer[8];
  for (int j = 0; j < 8; ++j) scale[j] = level_scale(x + 32 * j);
  const float d = share_factor(scale, 8, 32, integer);
  put_half(block, d);
  std::memset(block + 2, 0, 6);
  for (int j = 0; j < 8; ++j) {
    const int s = integer[j] + 32;
    block[4 + j / 2] = std::uint8_t(block[4 + j / 2] | (s & 15) << (4 * (j % 2)));
    block[2 + j / 4] = std::uint8_t(block[2 + j / 4] | (s >> 4) << (2 * (j % 4)));
    put_levels(x + 32 * j, d * float(integer[j]), block + 8 + 16 * j);
  }
}

void quantize(void (*pack)(const float*, std::uint8_t*), const DTypeInfo& block, const float* x, void* dst,
              std::size_t n) {
  auto* out = static_cast<std::uint8_t*>(dst);
  for (std::size_t done = 0; done < n; done += block.block_weights, out += block.block_bytes) pack(x + done, out);
}

}  // namespace

void quantize_row(DType type, const float* x, void* dst, std::size_t n) {
  const auto& block = info(type);
  auto* halves = static_cast<unsigned char*>(dst);
  switch (type) {
    case DType::f32:
      std::memcpy(dst, x, n * sizeof(float));
      return;
    case DType::f16:
      for (std::size_t i = 0; i < n; ++i) put_half(halves + 2 * i, x[i]);
      return;
    case DType::bf16:
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint16_t bits = f32_to_bf16(x[i]);
        std::memcpy(halves + 2 * i, &bits, sizeof bits);
      }
      return;
    case DType::q4_0:
      return quantize(pack_q4_0, block, x, dst, n);
    case DType::q4_1:
      return quantize(pack_q4_1, block, x, dst, n);
    case DType::q5_0:
      return quantize(pack_q5_0, block, x, dst, n);
    case DType::q5_1:
      return quantize(pack_q5_1, block, x, dst, n);
    case DType::q8_0:
      return quantize(pack_q8_0, block, x, dst, n);
    case DType::q3_k:
      return quantize(pack_q3_k, block, x, dst, n);
    case DType::q4_k:
      return quantize(pack_q4_k, block, x, dst, n);
    case DType::q5_k:
      return quantize(pack_q5_k, block, x, dst, n);
    case DType::q6_k:
      return quantize(pack_q6_k, block, x, dst, n);
    case DType::iq4_nl:
      return quantize(pack_iq4_nl, block, x, dst, n);
    case DType::iq4_xs:
      return quantize(pack_iq4_xs, block, x, dst, n);
  }
}

}  // namespace fastkv
