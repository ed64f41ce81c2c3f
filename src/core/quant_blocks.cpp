// Dequantisation: each format takes a block apart into integer codes and per-group scales and offsets.
#include "core/quant_blocks.hpp"

#include <cstring>

#include "core/half.hpp"

namespace fastkv {

const std::int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

namespace {

/// Weight i of a block is scale[g]·code[i] - offset[g], g = i / (weights per group).
struct Parts {
  std::int8_t code[256];
  float scale[16];
  float offset[16];
};

float half_at(const std::uint8_t* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return f16_to_f32(bits);
}

/// The low nibbles of `n` bytes are the first `n` codes, the high nibbles the next `n`.
void nibbles(const std::uint8_t* qs, std::int8_t* code, int n) {
  for (int i = 0; i < n; ++i) {
    code[i] = std::int8_t(qs[i] & 15);
    code[n + i] = std::int8_t(qs[i] >> 4);
  }
}

/// Adds 16 to the codes whose bit is set in the 32-bit word `qh` (Q5_0, Q5_1).
void fifth_bits(const std::uint8_t* qh, std::int8_t* code) {
  for (int i = 0; i < 32; ++i) code[i] = std::int8_t(code[i] + ((qh[i / 8] >> (i % 8)) & 1) * 16);
}

/// The 6-bit scale and minimum of group j (of 8) in the 12 bytes that Q4_K and Q5_K share: groups 0-3 in the low six
/// bits of bytes 0-3 and 4-7; groups 4-7 have their low nibbles in bytes 8-11, their high bits on top of the former.
void scale_and_min(const std::uint8_t* packed, int j, int& scale, int& min) {
  if (j < 4) {
    scale = packed[j] & 63;
    min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4);
    min = (packed[j + 4] >> 4) | (packed[j] >> 6 << 4);
  }
}

void k_scales(const std::uint8_t* block, Parts& parts) {
  const float d = half_at(block), d_min = half_at(block + 2);
  for (int j = 0; j < 8; ++j) {
    int scale = 0, min = 0;
    scale_and_min(block + 4, j, scale, min);
    parts.scale[j] = d * float(scale);
    parts.offset[j] = d_min * float(min);
  }
}

void unpack_q4_0(const std::uint8_t* block, Parts& parts) {
  nibbles(block + 2, parts.code, 16);
  for (int i = 0; i < 32; ++i) parts.code[i] = std::int8_t(parts.code[i] - 8);
  parts.scale[0] = half_at(block);
  parts.offset[0] = 0;
}

void unpack_q4_1(const std::uint8_t* block, Parts& parts) {
  nibbles(block + 4, parts.code, 16);
  parts.scale[0] = half_at(block);
  parts.offset[0] = -half_at(block + 2);
}

void unpack_q5_0(const std::uint8_t* block, Parts& parts) {
  nibbles(block + 6, parts.code, 16);
  fifth_bits(block + 2, parts.code);
  for (int i = 0; i < 32; ++i) parts.code[i] = std::int8_t(parts.code[i] - 16);
  parts.scale[0] = half_at(block);
  parts.offset[0] = 0;
}

void unpack_q5_1(const std::uint8_t* block, Parts& parts) {
  nibbles(block + 8, parts.code, 16);
  fifth_bits(block + 4, parts.code);
  parts.scale[0] = half_at(block);
  parts.offset[0] = -half_at(block + 2);
}

void unpack_q8_0(const std::uint8_t* block, Parts& parts) {
  std::memcpy(parts.code, block + 2, 32);
  parts.scale[0] = half_at(block);
  parts.offset[0] = 0;
}

/// hmask[32], qs[64], 16 scales of 6 bits in 12 bytes, d. Weight 128h + 32s + l: low bits at 2s of qs[32h + l], high
/// bit (clear: minus 4) at 4h + s of hmask[l]. Scale j: low nibble in byte j mod 8, high two bits in byte 8 + j mod 4.
void unpack_q3_k(const std::uint8_t* block, Parts& parts) {
  const std::uint8_t *hmask = block, *qs = block + 32, *packed = block + 96;
  const float d = half_at(block + 108);
  for (int j = 0; j < 16; ++j) {
    const int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    const int high = (packed[8 + j % 4] >> (2 * (j / 4))) & 3;
    parts.scale[j] = d * float((low | high << 4) - 32);
    parts.offset[j] = 0;
  }
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, shift = i % 128 / 32, l = i % 32;
    const int low = (qs[32 * half + l] >> (2 * shift)) & 3;
    const int high = (hmask[l] >> (4 * half + shift)) & 1;
    parts.code[i] = std::int8_t(low + 4 * high - 4);
  }
}

/// d, dmin, 12 bytes of scales, qs[128]: 32 bytes hold groups 2p (low nibbles) and 2p + 1 (high nibbles).
void unpack_q4_k(const std::uint8_t* block, Parts& parts) {
  k_scales(block, parts);
  for (int p = 0; p < 4; ++p) nibbles(block + 16 + 32 * p, parts.code + 64 * p, 32);
}

/// As Q4_K with qh[32] before qs: bit j of qh[l] is the fifth bit of weight l of group j.
void unpack_q5_k(const std::uint8_t* block, Parts& parts) {
  k_scales(block, parts);
  for (int p = 0; p < 4; ++p) nibbles(block + 48 + 32 * p, parts.code + 64 * p, 32);
  for (int i = 0; i < 256; ++i)
    parts.code[i] = std::int8_t(parts.code[i] + ((block[16 + i % 32] >> (i / 32)) & 1) * 16);
}

/// ql[128], qh[64], 16 signed scales, d. Weight 128h + 32s + l: nibble s/2 of ql[64h + 32(s mod 2) + l] and bits 2s of
/// qh[32h + l], minus 32.
void unpack_q6_k(const std::uint8_t* block, Parts& parts) {
  const std::uint8_t *ql = block, *qh = block + 128;
  const float d = half_at(block + 208);
  for (int j = 0; j < 16; ++j) {
    parts.scale[j] = d * float(static_cast<std::int8_t>(block[192 + j]));
    parts.offset[j] = 0;
  }
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, s = i % 128 / 32, l = i % 32;
    const int low = (ql[64 * half + 32 * (s % 2) + l] >> (4 * (s / 2))) & 15;
    const int high = (qh[32 * half + l] >> (2 * s)) & 3;
    parts.code[i] = std::int8_t((low | high << 4) - 32);
  }
}

void unpack_iq4_nl(const std::uint8_t* block, Parts& parts) {
  nibbles(block + 2, parts.code, 16);
  for (int i = 0; i < 32; ++i) parts.code[i] = kIq4Levels[parts.code[i]];
  parts.scale[0] = half_at(block);
  parts.offset[0] = 0;
}

/// d, 8 high scale pairs in 16 bits, 8 low scale nibbles, qs[128]: group j of 32 in 16 bytes.
void unpack_iq4_xs(const std::uint8_t* block, Parts& parts) {
  const float d = half_at(block);
  for (int j = 0; j < 8; ++j) {
    const int low = (block[4 + j / 2] >> (4 * (j % 2))) & 15;
    const int high = (block[2 + j / 4] >> (2 * (j % 4))) & 3;
    parts.scale[j] = d * float((low | high << 4) - 32);
    parts.offset[j] = 0;
    nibbles(block + 8 + 16 * j, parts.code + 32 * j, 16);
  }
  for (int i = 0; i < 256; ++i) parts.code[i] = kIq4Levels[parts.code[i]];
}

template <int kWeights, int kGroup>
void dequantize(void (*unpack)(const std::uint8_t*, Parts&), std::size_t block_bytes, const void* src, float* out,
                std::size_t n) {
  const auto* block = static_cast<const std::uint8_t*>(src);
  Parts parts;
  for (std::size_t done = 0; done < n; done += kWeights, block += block_bytes, out += kWeights) {
    unpack(block, parts);
    for (int i = 0; i < kWeights; ++i)
      out[i] = parts.scale[i / kGroup] * float(parts.code[i]) - parts.offset[i / kGroup];
  }
}

}  // namespace

void dequantize_row(DType type, const void* src, float* out, std::size_t n) {
  const auto bytes = info(type).block_bytes;
  const auto* words = static_cast<const unsigned char*>(src);
  switch (type) {
    case DType::f32:
      std::memcpy(out, src, n * sizeof(float));
      return;
    case DType::f16:
      for (std::size_t i = 0; i < n; ++i) out[i] = half_at(words + 2 * i);
      return;
    case DType::bf16:
      for (std::size_t i = 0; i < n; ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, words + 2 * i, sizeof bits);
        out[i] = bf16_to_f32(bits);
      }
      return;
    case DType::q4_0:
      return dequantize<32, 32>(unpack_q4_0, bytes, src, out, n);
    case DType::q4_1:
      return dequantize<32, 32>(unpack_q4_1, bytes, src, out, n);
    case DType::q5_0:
      return dequantize<32, 32>(unpack_q5_0, bytes, src, out, n);
    case DType::q5_1:
      return dequantize<32, 32>(unpack_q5_1, bytes, src, out, n);
    case DType::q8_0:
      return dequantize<32, 32>(unpack_q8_0, bytes, src, out, n);
    case DType::q3_k:
      return dequantize<256, 16>(unpack_q3_k, bytes, src, out, n);
    case DType::q4_k:
      return dequantize<256, 32>(unpack_q4_k, bytes, src, out, n);
    case DType::q5_k:
      return dequantize<256, 32>(unpack_q5_k, bytes, src, out, n);
    case DType::q6_k:
      return dequantize<256, 16>(unpack_q6_k, bytes, src, out, n);
    case DType::iq4_nl:
      return dequantize<32, 32>(unpack_iq4_nl, bytes, src, out, n);
    case DType::iq4_xs:
      return dequantize<256, 32>(unpack_iq4_xs, bytes, src, out, n);
  }
}

}  // namespace fastkv
