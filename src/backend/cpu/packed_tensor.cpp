// Packing of GGUF tensors into panels, and reading a row back.
#include "backend/cpu/packed_tensor.hpp"

#include <algorithm>
#include <cstring>

#include "core/block_parts.hpp"
#include "core/check.hpp"
#include "core/half.hpp"
#include "core/quant_blocks.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

using simd::kGroup;
using simd::kLanes;
using simd::Packing;

// What the planes of 32 inputs consist of, in order.
struct Planes {
  bool nibbles = false, bytes = false, sixes = false, crumbs = false, bit = false;
  int bit_shift = 0;  ///< place of the bit in q
};

Planes planes_of(Packing packing) {
  switch (packing) {
    case Packing::q5_0:
    case Packing::q5_1:
    case Packing::q5_k:
      return {.nibbles = true, .bit = true, .bit_shift = 4};
    case Packing::q8_0:
      return {.bytes = true};
    case Packing::q3_k:
      return {.crumbs = true, .bit = true, .bit_shift = 2};
    case Packing::q6_k:
      return {.sixes = true};
    default:
      return {.nibbles = true};
  }
}

int plane_bytes(const Planes& p) {
  return p.nibbles * 256 + p.bytes * 512 + p.sixes * 384 + p.crumbs * 128 + p.bit * 64;
}

// Of input k of sixes: its byte, or of the last four of 16, the three that hold two bits each, from `shift` 4 down.
int six_at(int k, int lane) { return 64 * (k / 16 * 3 + k % 16 / 4) + 4 * lane + k % 4; }
int two_bits_at(int k, int lane, int shift) { return 64 * (k / 16 * 3 + (4 - shift) / 2) + 4 * lane + k % 4; }

// q[32] of lane `lane` into zeroed planes.
void write_planes(const Planes& p, const std::uint8_t* q, int lane, std::uint8_t* out) {
  if (p.nibbles) {
    for (int j = 0; j < 4; ++j)
      for (int b = 0; b < 4; ++b)
        out[64 * j + 4 * lane + b] = std::uint8_t((q[4 * j + b] & 15) | (q[16 + 4 * j + b] & 15) << 4);
    out += 256;
  }
  if (p.bytes) {
    for (int j = 0; j < 8; ++j) std::memcpy(out + 64 * j + 4 * lane, q + 4 * j, 4);
    out += 512;
  }
  if (p.sixes) {
    for (int k = 0; k < 32; ++k) {
      if (k % 16 < 12) {
        out[six_at(k, lane)] |= q[k];
      } else {
        for (const int shift : {4, 2, 0}) out[two_bits_at(k, lane, shift)] |= std::uint8_t((q[k] >> shift & 3) << 6);
      }
    }
    out += 384;
  }
  if (p.crumbs) {
    for (int k = 0; k < 32; ++k) {
      const int step = k / 4;
      out[64 * (step / 4) + 4 * lane + k % 4] |= std::uint8_t((q[k] & 3) << (2 * (step % 4)));
    }
    out += 128;
  }
  if (p.bit)
    for (int k = 0; k < 32; ++k) out[4 * lane + k % 4] |= std::uint8_t(((q[k] >> p.bit_shift) & 1) << (k / 4));
}

void read_planes(const Planes& p, const std::uint8_t* in, int lane, std::uint8_t* q) {
  std::memset(q, 0, 32);
  if (p.nibbles) {
    for (int j = 0; j < 4; ++j)
      for (int b = 0; b < 4; ++b) {
        const std::uint8_t byte = in[64 * j + 4 * lane + b];
        q[4 * j + b] = byte & 15;
        q[16 + 4 * j + b] = byte >> 4;
      }
    in += 256;
  }
  if (p.bytes) {
    for (int j = 0; j < 8; ++j) std::memcpy(q + 4 * j, in + 64 * j + 4 * lane, 4);
    in += 512;
  }
  if (p.sixes) {
    for (int k = 0; k < 32; ++k) {
      if (k % 16 < 12) {
        q[k] = in[six_at(k, lane)] & 63;
      } else {
        for (const int shift : {4, 2, 0}) q[k] |= std::uint8_t(in[two_bits_at(k, lane, shift)] >> 6 << shift);
      }
    }
    in += 384;
  }
  if (p.crumbs) {
    for (int k = 0; k < 32; ++k) {
      const int step = k / 4;
      q[k] |= std::uint8_t((in[64 * (step / 4) + 4 * lane + k % 4] >> (2 * (step % 4))) & 3);
    }
    in += 128;
  }
  if (p.bit)
    for (int k = 0; k < 32; ++k) q[k] |= std::uint8_t(((in[4 * lane + k % 4] >> (k / 4)) & 1) << p.bit_shift);
}

// Offsets inside a block of 16 rows (simd/packed.hpp).
struct BlockLayout {
  int d = 0, m = 0, sc = 0, mn = 0, planes = 0;  ///< byte offsets
  int scales = 0;                                ///< entries of sc per row
};

BlockLayout layout_of(const simd::PackingInfo& info, std::int64_t block) {
  BlockLayout l;
  const simd::BlockOffsets offsets = simd::block_offsets(info.block_bytes, info.affine, block % 2 != 0);
  l.d = offsets.d;
  int at = offsets.rest;
  if (info.affine) l.m = at, at += 32;
  if (info.block == 256) {
    l.scales = 256 / info.scale_group;
    l.sc = at, at += 16 * l.scales;
    if (info.affine) l.mn = at, at += 16 * 8;
  }
  l.planes = at;
  return l;
}

void put16(std::uint8_t* p, std::uint16_t v) { std::memcpy(p, &v, 2); }
std::uint16_t get16(const std::uint8_t* p) {
  std::uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

}  // namespace

Packing packing_of(DType type) {
  switch (type) {
    case DType::f32:
      return Packing::f32;
    case DType::f16:
      return Packing::f16;
    case DType::bf16:
      return Packing::bf16;
    case DType::q4_0:
      return Packing::q4_0;
    case DType::q4_1:
      return Packing::q4_1;
    case DType::q5_0:
      return Packing::q5_0;
    case DType::q5_1:
      return Packing::q5_1;
    case DType::q8_0:
      return Packing::q8_0;
    case DType::q3_k:
      return Packing::q3_k;
    case DType::q4_k:
      return Packing::q4_k;
    case DType::q5_k:
      return Packing::q5_k;
    case DType::q6_k:
      return Packing::q6_k;
    case DType::iq4_nl:
      return Packing::iq4_nl;
    case DType::iq4_xs:
      return Packing::iq4_xs;
  }
  fail(ErrorCode::internal, "packing_of: type ", std::uint32_t(type));
}

std::int64_t PackedTensor::panels_of(const TensorView& source) { return ceil_div(source.rows, kLanes); }

std::size_t PackedTensor::packed_bytes(const TensorView& source) {
  return std::size_t(panels_of(source)) * simd::panel_bytes(packing_of(source.type), round_up(source.cols, kGroup));
}

PackedTensor::PackedTensor(const TensorView& source, const Placement& placement, PanelList list, HugePages huge_pages,
                           std::size_t skew)
    : packing_(packing_of(source.type)),
      rows_(source.rows),
      cols_(source.cols),
      k32_(round_up(source.cols, kGroup)),
      panels_(panels_of(source)),
      panel_bytes_(simd::panel_bytes(packing_, k32_)),
      skew_(skew) {
  for (int copy = 0; copy < placement.copies(); ++copy)
    copies_.emplace_back(packed_bytes(source) + skew, source.name.c_str(), huge_pages);
  for (int node = 0; node < placement.nodes(); ++node) {
    if (placement.copies() > 1) {
      placement.bind(copies_[std::size_t(node)], 0, packed_bytes(source), node);
      continue;
    }
    const Range part = placement.part(list.count, node);
    const auto bytes_before = [&](std::int64_t panel) {
      return std::size_t(std::clamp<std::int64_t>(panel - list.begin, 0, panels_)) * panel_bytes_;
    };
    placement.bind(copies_[0], bytes_before(part.begin), bytes_before(part.end), node);
  }
}

void PackedTensor::copy_panels(int from, int to, std::int64_t begin, std::int64_t end) {
  const std::size_t at = std::size_t(begin) * panel_bytes_;
  std::memcpy(data(to) + at, data(from) + at, std::size_t(end - begin) * panel_bytes_);
}

void PackedTensor::pack_panels(const TensorView& source, std::int64_t begin, std::int64_t end) {
  const simd::PackingInfo& pack = simd::info(packing_);
  const std::size_t source_row = row_bytes(source.type, std::size_t(cols_));
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(source.data);
  for (std::int64_t p = begin; p < end; ++p) {
    std::uint8_t* out = data(own_copy()) + std::size_t(p) * panel_bytes_;  // zeroed by Buffer
    const int lanes = int(std::min<std::int64_t>(kLanes, rows_ - p * kLanes));
    if (is_float()) {
      const std::size_t size = fastkv::info(source.type).block_bytes;
      for (int lane = 0; lane < lanes; ++lane) {
        const std::uint8_t* row = bytes + std::size_t(p * kLanes + lane) * source_row;
        for (std::int64_t k = 0; k < cols_; ++k)
          std::memcpy(out + (std::size_t(k) * kLanes + std::size_t(lane)) * size, row + std::size_t(k) * size, size);
      }
      continue;
    }
    const Planes planes = planes_of(packing_);
    const std::size_t source_block = fastkv::info(source.type).block_bytes;
    for (std::int64_t block = 0; block < cols_ / pack.block; ++block, out += pack.block_bytes) {
      const BlockLayout at = layout_of(pack, block);
      for (int lane = 0; lane < lanes; ++lane) {
        BlockParts parts;
        read_block(source.type, bytes + std::size_t(p * kLanes + lane) * source_row + std::size_t(block) * source_block,
                   parts);
        put16(out + at.d + 2 * lane, parts.d);
        if (pack.affine) put16(out + at.m + 2 * lane, parts.m);
        for (int i = 0; i < at.scales; ++i) out[at.sc + 16 * i + lane] = std::uint8_t(parts.sc[i]);
        if (at.mn)
          for (int i = 0; i < 8; ++i) out[at.mn + 16 * i + lane] = parts.mn[i];
        for (int g = 0; g < pack.block / kGroup; ++g)
          write_planes(planes, parts.q + kGroup * g, lane, out + at.planes + g * plane_bytes(planes));
      }
    }
  }
}

void PackedTensor::read_row(std::int64_t row, float* out) const {
  const simd::PackingInfo& pack = simd::info(packing_);
  const int lane = int(row % kLanes);
  const std::uint8_t* in = panel(row / kLanes);
  if (is_float()) {
    for (std::int64_t k = 0; k < cols_; ++k) {
      const std::size_t i = std::size_t(k) * kLanes + std::size_t(lane);
      if (packing_ == Packing::f32)
        std::memcpy(out + k, in + 4 * i, 4);
      else
        out[k] = packing_ == Packing::f16 ? f16_to_f32(get16(in + 2 * i)) : bf16_to_f32(get16(in + 2 * i));
    }
    return;
  }
  const Planes planes = planes_of(packing_);
  const bool levels = packing_ == Packing::iq4_nl || packing_ == Packing::iq4_xs;
  for (std::int64_t block = 0; block < cols_ / pack.block; ++block, in += pack.block_bytes) {
    const BlockLayout at = layout_of(pack, block);
    const float d = f16_to_f32(get16(in + at.d + 2 * lane));
    const float m = pack.affine ? f16_to_f32(get16(in + at.m + 2 * lane)) : 0.0f;
    for (int g = 0; g < pack.block / kGroup; ++g) {
      std::uint8_t q[kGroup];
      read_planes(planes, in + at.planes + g * plane_bytes(planes), lane, q);
      const float min = pack.block == kGroup ? -m : at.mn ? m * float(in[at.mn + 16 * g + lane]) : 0.0f;
      for (int k = 0; k < kGroup; ++k) {
        float scale = d;
        if (at.scales) scale *= float(std::int8_t(in[at.sc + 16 * ((kGroup * g + k) / pack.scale_group) + lane]));
        const int value = levels ? kIq4Levels[q[k]] : int(q[k]) - pack.zero;
        *out++ = scale * float(value) - min;
      }
    }
  }
}

}  // namespace fastkv::cpu
