// GGUF's quantised blocks, taken apart type by type (formats: spec/models.md 1, ggml's definitions).
#include "core/block_parts.hpp"

#include <cstring>

#include "core/check.hpp"

namespace fastkv {
namespace {

std::uint16_t load16(const std::uint8_t* p) {
  std::uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}
std::uint32_t load32(const std::uint8_t* p) {
  std::uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

// 16 bytes hold 32 nibbles: low halves first.
void read_nibbles(const std::uint8_t* bytes, std::uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = bytes[j] & 15;
    q[j + 16] = bytes[j] >> 4;
  }
}

void add_fifth_bits(std::uint32_t bits, std::uint8_t* q) {
  for (int j = 0; j < 32; ++j) q[j] |= std::uint8_t(((bits >> j) & 1) << 4);
}

// The 8 six-bit scales and mins of Q4_K and Q5_K in 12 bytes.
void read_scales_mins(const std::uint8_t* s, BlockParts& b) {
  for (int j = 0; j < 4; ++j) {
    b.sc[j] = std::int8_t(s[j] & 63);
    b.mn[j] = s[j + 4] & 63;
    b.sc[j + 4] = std::int8_t((s[j + 8] & 15) | ((s[j] >> 6) << 4));
    b.mn[j + 4] = std::uint8_t((s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4));
  }
}

// 64 inputs a time: 32 low nibbles, then 32 high nibbles of the same 32 bytes.
void read_k_nibbles(const std::uint8_t* bytes, std::uint8_t* q) {
  for (int chunk = 0; chunk < 4; ++chunk)
    for (int j = 0; j < 32; ++j) {
      q[64 * chunk + j] = bytes[32 * chunk + j] & 15;
      q[64 * chunk + 32 + j] = bytes[32 * chunk + j] >> 4;
    }
}

void read_q3_k(const std::uint8_t* p, BlockParts& b) {
  const std::uint8_t *hmask = p, *qs = p + 32, *scales = p + 96;
  b.d = load16(p + 108);
  for (int i = 0; i < 16; ++i) {  // low four bits: bytes 0..7; high two bits: bytes 8..11
    const int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
    const int high = (scales[8 + i % 4] >> (2 * (i / 4))) & 3;
    b.sc[i] = std::int8_t((low | (high << 4)) - 32);
  }
  for (int k = 0; k < 256; ++k) {
    const int half = k / 128, shift = k % 128 / 32, j = k % 32;
    const int low = (qs[32 * half + j] >> (2 * shift)) & 3;
    const int high = (hmask[j] >> (4 * half + shift)) & 1;
    b.q[k] = std::uint8_t(low | (high << 2));
  }
}

void read_q6_k(const std::uint8_t* p, BlockParts& b) {
  const std::uint8_t *ql = p, *qh = p + 128;
  std::memcpy(b.sc, p + 192, 16);
  b.d = load16(p + 208);
  for (int half = 0; half < 2; ++half, ql += 64, qh += 32)
    for (int j = 0; j < 32; ++j) {
      std::uint8_t* q = b.q + 128 * half + j;
      q[0] = std::uint8_t((ql[j] & 15) | ((qh[j] & 3) << 4));
      q[32] = std::uint8_t((ql[j + 32] & 15) | (((qh[j] >> 2) & 3) << 4));
      q[64] = std::uint8_t((ql[j] >> 4) | (((qh[j] >> 4) & 3) << 4));
      q[96] = std::uint8_t((ql[j + 32] >> 4) | ((qh[j] >> 6) << 4));
    }
}

}  // namespace

BlockShape block_shape(DType type) {
  switch (type) {
    case DType::q4_0: return {8, 32, false};
    case DType::q5_0: return {16, 32, false};
    case DType::q8_0: return {128, 32, false};
    case DType::q3_k: return {4, 16, false};
    case DType::q6_k: return {32, 16, false};
    case DType::iq4_nl:
    case DType::iq4_xs: return {0, 32, true};
    default: return {0, 32, false};
  }
}

void read_block(DType type, const std::uint8_t* p, BlockParts& b) {
  switch (type) {
    case DType::q4_0:
    case DType::iq4_nl:
      b.d = load16(p);
      read_nibbles(p + 2, b.q);
      return;
    case DType::q4_1:
      b.d = load16(p);
      b.m = load16(p + 2);
      read_nibbles(p + 4, b.q);
      return;
    case DType::q5_0:
      b.d = load16(p);
      read_nibbles(p + 6, b.q);
      add_fifth_bits(load32(p + 2), b.q);
      return;
    case DType::q5_1:
      b.d = load16(p);
      b.m = load16(p + 2);
      read_nibbles(p + 8, b.q);
      add_fifth_bits(load32(p + 4), b.q);
      return;
    case DType::q8_0:
      b.d = load16(p);
      for (int j = 0; j < 32; ++j) b.q[j] = std::uint8_t(p[2 + j] ^ 0x80);  // int8 + 128
      return;
    case DType::q3_k:
      read_q3_k(p, b);
      return;
    case DType::q4_k:
      b.d = load16(p);
      b.m = load16(p + 2);
      read_scales_mins(p + 4, b);
      read_k_nibbles(p + 16, b.q);
      return;
    case DType::q5_k:
      b.d = load16(p);
      b.m = load16(p + 2);
      read_scales_mins(p + 4, b);
      read_k_nibbles(p + 48, b.q);
      for (int k = 0; k < 256; ++k) b.q[k] |= std::uint8_t(((p[16 + k % 32] >> (k / 32)) & 1) << 4);
      return;
    case DType::q6_k:
      read_q6_k(p, b);
      return;
    case DType::iq4_xs:
      b.d = load16(p);
      for (int i = 0; i < 8; ++i) {
        const int low = (p[4 + i / 2] >> (4 * (i % 2))) & 15, high = (load16(p + 2) >> (2 * i)) & 3;
        b.sc[i] = std::int8_t((low | (high << 4)) - 32);
        read_nibbles(p + 8 + 16 * i, b.q + 32 * i);
      }
      return;
    case DType::f32:
    case DType::f16:
    case DType::bf16:
      break;
  }
  fail(ErrorCode::internal, "read_block: ", name(type), " is not quantised");
}

}  // namespace fastkv
