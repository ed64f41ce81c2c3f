// Blocks of 128 keys stay in L1/L2 while the G query heads that share them pass: scores, online softmax, weighted sum.
#include "backend/cpu/attention.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace fastkv::cpu {
namespace {

using simd::kLanes;
constexpr int kPanels = kKeyBlock / kLanes;

std::size_t element(const Arithmetic& a) { return a.bf16_attention ? 2 : 4; }

// Elements of one (head, block) in the two layouts.
std::size_t key_block_elements(const AttentionShape& s) { return std::size_t(kKeyBlock) * std::size_t(s.d); }
std::size_t value_block_elements(const AttentionShape& s) { return std::size_t(kKeyBlock) * std::size_t(s.d16()); }

}  // namespace

std::size_t key_panel_bytes(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t n) {
  return std::size_t(shape.heads_kv) * std::size_t(key_blocks(n)) * key_block_elements(shape) * element(arithmetic);
}
std::size_t value_panel_bytes(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t n) {
  return std::size_t(shape.heads_kv) * std::size_t(key_blocks(n)) * value_block_elements(shape) * element(arithmetic);
}

void pack_key_block(const Arithmetic& arithmetic, const AttentionShape& shape, CpuLayerState& state, int head,
                    std::int64_t block) {
  const simd::KernelTable& kt = *arithmetic.kernels;
  const std::int64_t first = block * kKeyBlock;
  const int n = int(std::min<std::int64_t>(kKeyBlock, state.n - first));
  const std::size_t row = (std::size_t(head) * std::size_t(state.n) + std::size_t(first)) * std::size_t(shape.d);
  const float *keys = state.k.data() + row, *values = state.v.data() + row;
  const std::size_t index = std::size_t(head) * std::size_t(key_blocks(state.n)) + std::size_t(block);
  std::uint8_t* key_out = state.key_panels.as<std::uint8_t>() + index * key_block_elements(shape) * element(arithmetic);
  std::uint8_t* value_out =
      state.value_panels.as<std::uint8_t>() + index * value_block_elements(shape) * element(arithmetic);
  for (int p = 0; p < kPanels; ++p) {
    const int lanes = std::clamp(n - p * kLanes, 0, kLanes);
    const float* from = keys + std::size_t(p) * kLanes * std::size_t(shape.d);
    const std::size_t to = std::size_t(p) * kLanes * std::size_t(shape.d);
    if (arithmetic.bf16_attention)
      kt.pack_keys_bf16(from, shape.d, lanes, shape.d, reinterpret_cast<std::uint16_t*>(key_out) + to);
    else
      kt.pack_keys_f32(from, shape.d, lanes, shape.d, reinterpret_cast<float*>(key_out) + to);
  }
  if (arithmetic.bf16_attention)
    kt.pack_values_bf16(values, shape.d, n, kKeyBlock, shape.d, reinterpret_cast<std::uint16_t*>(value_out));
  else
    kt.pack_values_f32(values, shape.d, n, kKeyBlock, shape.d, reinterpret_cast<float*>(value_out));
}

std::size_t AttentionTile::bytes(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t rows) {
  const std::size_t r = std::size_t(rows), g = std::size_t(shape.group());
  const std::size_t bf16 = arithmetic.bf16_attention ? g * r * std::size_t(shape.d) * 2 + r * kKeyBlock * 2 : 0;
  return bf16 + r * kKeyBlock * 4 + g * r * std::size_t(shape.d16()) * 4 + 2 * g * r * 4;
}

AttentionTile::AttentionTile(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t rows)
    : arithmetic_(&arithmetic), shape_(shape) {
  const std::size_t r = std::size_t(rows), g = std::size_t(shape.group());
  if (arithmetic.bf16_attention) {
    q_bf16_ = Array<std::uint16_t>(g * r * std::size_t(shape.d), "attention tile");
    p_bf16_ = Array<std::uint16_t>(r * kKeyBlock, "attention tile");
  }
  s_ = Array<float>(r * kKeyBlock, "attention tile");
  o_ = Array<float>(g * r * std::size_t(shape.d16()), "attention tile");
  m_ = Array<float>(g * r, "attention tile");
  l_ = Array<float>(g * r, "attention tile");
}

void AttentionTile::run(const CpuLayerState& state, int head, const float* q, const std::int32_t* limits,
                        std::int64_t m, float* out) {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  const bool bf16 = arithmetic_->bf16_attention;
  const int d = shape_.d, d16 = shape_.d16(), group = shape_.group();
  const std::int64_t ld = std::int64_t(shape_.heads) * d;
  const float* q_head = q + std::int64_t(head) * group * d;
  for (int g = 0; bf16 && g < group; ++g)
    for (std::int64_t i = 0; i < m; ++i) kt.f32_to_bf16(q_head + i * ld + g * d, d, q_bf16_.data() + (g * m + i) * d);
  std::fill_n(m_.data(), group * m, -std::numeric_limits<float>::infinity());
  std::fill_n(l_.data(), group * m, 0.0f);
  std::fill_n(o_.data(), group * m * d16, 0.0f);

  const std::int64_t last = *std::max_element(limits, limits + m);
  for (std::int64_t block = 0; block < key_blocks(last); ++block) {
    const std::size_t index = std::size_t(head) * std::size_t(key_blocks(state.n)) + std::size_t(block);
    const std::size_t key_at = index * key_block_elements(shape_), value_at = index * value_block_elements(shape_);
    for (int g = 0; g < group; ++g) {
      // s[i, j] = q_i · k_j
      if (bf16)
        kt.gemm_bf16(m, d, q_bf16_.data() + g * m * d, d, state.key_panels.as<std::uint16_t>() + key_at, kPanels,
                     s_.data(), kKeyBlock, false);
      else
        kt.gemm_f32(m, d, q_head + g * d, ld, state.key_panels.as<float>() + key_at, kPanels, s_.data(), kKeyBlock,
                    false);
      // p = exp(scale·s − m'), o *= exp(m − m')
      float* o = o_.data() + g * m * d16;
      for (std::int64_t i = 0; i < m; ++i) {
        const int n = int(std::clamp<std::int64_t>(limits[i] - block * kKeyBlock, 0, kKeyBlock));
        const float alpha =
            kt.softmax_block(s_.data() + i * kKeyBlock, n, kKeyBlock, shape_.scale, m_.data() + g * m + i,
                             l_.data() + g * m + i, bf16 ? p_bf16_.data() + i * kKeyBlock : nullptr);
        if (alpha != 1.0f) kt.scale(o + i * d16, alpha, d16);
      }
      // o[i] += Σ_j p[i, j] · v_j
      if (bf16)
        kt.gemm_bf16(m, kKeyBlock, p_bf16_.data(), kKeyBlock, state.value_panels.as<std::uint16_t>() + value_at,
                     d16 / kLanes, o, d16, true);
      else
        kt.gemm_f32(m, kKeyBlock, s_.data(), kKeyBlock, state.value_panels.as<float>() + value_at, d16 / kLanes, o, d16,
                    true);
    }
  }
  for (int g = 0; g < group; ++g)
    for (std::int64_t i = 0; i < m; ++i) {
      float* to = out + i * ld + (std::int64_t(head) * group + g) * d;
      std::memcpy(to, o_.data() + (g * m + i) * d16, std::size_t(d) * sizeof(float));
      kt.scale(to, 1.0f / l_[std::size_t(g * m + i)], d);
    }
}

}  // namespace fastkv::cpu
