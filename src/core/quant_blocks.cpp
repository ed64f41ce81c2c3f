// Dequantisation: a block taken apart, then scale · code + offset, weight by weight.
#include "core/quant_blocks.hpp"

#include <cstring>

#include "core/block_parts.hpp"
#include "core/half.hpp"

namespace fastkv {

const std::int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

namespace {

void dequantize_floats(DType type, const std::uint8_t* src, float* out, std::size_t n) {
  if (type == DType::f32) {
    std::memcpy(out, src, n * sizeof(float));
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, src + 2 * i, sizeof bits);
    out[i] = type == DType::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
  }
}

void dequantize_block(const BlockParts& parts, const BlockShape& shape, int weights, float* out) {
  const float d = f16_to_f32(parts.d), m = f16_to_f32(parts.m);
  for (int k = 0; k < weights; ++k) {
    const bool super_block = weights == 256;
    const float scale = super_block ? d * float(parts.sc[k / shape.scale_group]) : d;
    const float offset = super_block ? -(m * float(parts.mn[k / 32])) : m;
    const int code = shape.levels ? kIq4Levels[parts.q[k]] : int(parts.q[k]) - shape.zero;
    out[k] = scale * float(code) + offset;
  }
}

}  // namespace

void dequantize_row(DType type, const void* src, float* out, std::size_t n) {
  const auto* bytes = static_cast<const std::uint8_t*>(src);
  const DTypeInfo& of = info(type);
  if (of.block_weights == 1) return dequantize_floats(type, bytes, out, n);
  const BlockShape shape = block_shape(type);
  for (std::size_t i = 0; i < n; i += of.block_weights, bytes += of.block_bytes) {
    BlockParts parts;
    read_block(type, bytes, parts);
    dequantize_block(parts, shape, int(of.block_weights), out + i);
  }
}

}  // namespace fastkv
