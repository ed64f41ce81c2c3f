// Keys and values into the layout of the attention kernels, and one thread's calls of them.
#include "backend/cpu/attention.hpp"

#include <algorithm>

namespace fastkv::cpu {
namespace {

using simd::kKeyBlock;
using simd::kLanes;

// Elements of one key, and of one value, in the compute layout.
std::size_t key_elements(const Arithmetic& a, const AttentionShape& s) {
  return std::size_t(a.bf16_attention ? round_up(s.d, 32) : s.d);
}
std::size_t value_elements(const AttentionShape& s) { return std::size_t(round_up(s.d, kLanes)); }
std::size_t element_bytes(const Arithmetic& a) { return a.bf16_attention ? 2 : 4; }

// Bytes of one key/value head.
std::size_t head_key_bytes(const Arithmetic& a, const AttentionShape& s, std::int64_t n) {
  return std::size_t(key_blocks(n)) * kKeyBlock * key_elements(a, s) * element_bytes(a);
}
std::size_t head_value_bytes(const Arithmetic& a, const AttentionShape& s, std::int64_t n) {
  return std::size_t(key_blocks(n)) * kKeyBlock * value_elements(s) * element_bytes(a);
}

}  // namespace

std::size_t key_panel_bytes(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t n) {
  return std::size_t(shape.heads_kv) * head_key_bytes(arithmetic, shape, n);
}
std::size_t value_panel_bytes(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t n) {
  return std::size_t(shape.heads_kv) * head_value_bytes(arithmetic, shape, n);
}

void pack_key_block(const Arithmetic& arithmetic, const AttentionShape& shape, CpuLayerState& state, int head,
                    std::int64_t block) {
  const simd::KernelTable& kt = *arithmetic.kernels;
  const std::int64_t first = block * kKeyBlock, d = shape.d;
  const int n = int(std::min<std::int64_t>(kKeyBlock, state.n - first));
  const std::int64_t row = (std::int64_t(head) * state.n + first) * d;
  const float *keys = state.kv.k.data() + row, *values = state.kv.v.data() + row;
  const std::size_t index = (std::size_t(head) * std::size_t(key_blocks(state.n)) + std::size_t(block)) * kKeyBlock;
  const std::size_t key_at = index * key_elements(arithmetic, shape), value_at = index * value_elements(shape);
  for (int p = 0; p < kKeyBlock; p += kLanes) {
    const int lanes = std::clamp(n - p, 0, kLanes);
    const float* from = keys + p * d;
    const std::size_t to = key_at + std::size_t(p) * key_elements(arithmetic, shape);
    if (arithmetic.bf16_attention)
      kt.pack_keys_bf16(from, d, lanes, shape.d, state.kv.key_panels.as<std::uint16_t>() + to);
    else
      kt.pack_keys_f32(from, d, lanes, shape.d, state.kv.key_panels.as<float>() + to);
  }
  if (arithmetic.bf16_attention)
    kt.pack_values_bf16(values, d, n, kKeyBlock, shape.d, state.kv.value_panels.as<std::uint16_t>() + value_at);
  else
    kt.pack_values_f32(values, d, n, kKeyBlock, shape.d, state.kv.value_panels.as<float>() + value_at);
}

std::size_t AttentionTile::bytes(const AttentionShape& shape, std::int64_t rows) {
  return simd::attention_work_bytes(rows * shape.group(), shape.d);
}

AttentionTile::AttentionTile(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t rows)
    : arithmetic_(&arithmetic), shape_(shape), work_(bytes(shape, rows), "attention tile") {}

void AttentionTile::run(const CpuLayerState& state, int head, Rows<const float> q, const std::int32_t* limits,
                        std::int64_t m, Rows<float> out) {
  const simd::AttentionRows rows{
      .q = q.data,
      .ldq = q.ld,
      .limits = limits,
      .m = m,
      .group = shape_.group(),
      .d = shape_.d,
      .scale = shape_.scale,
      .keys =
          state.kv.key_panels.as<std::uint8_t>() + std::size_t(head) * head_key_bytes(*arithmetic_, shape_, state.n),
      .values = state.kv.value_panels.as<std::uint8_t>() +
                std::size_t(head) * head_value_bytes(*arithmetic_, shape_, state.n),
      .work = work_.as<std::uint8_t>(),
      .out = out.data,
      .ldo = out.ld,
  };
  if (arithmetic_->bf16_attention)
    arithmetic_->kernels->attend_bf16(rows);
  else
    arithmetic_->kernels->attend_f32(rows);
}

}  // namespace fastkv::cpu
