// Unpacking weights into compute panels and multiplying row tiles with them.
#include "backend/cpu/linear.hpp"

#include <cstring>

#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

using simd::kGroup;
using simd::kLanes;

std::size_t align64(std::size_t n) { return (n + 63) / 64 * 64; }

// int8 unpacking of a packing: float weights are rounded to int8 around 128.
struct Int8Shape {
  int group, zero;
  bool affine;
};
Int8Shape int8_shape(const PackedTensor& w) {
  if (w.is_float()) return {kGroup, 128, false};
  const simd::PackingInfo& info = simd::info(w.packing());
  return {info.scale_group, info.zero, info.affine};
}

}  // namespace

std::size_t ComputePanels::bytes(const Arithmetic& arithmetic, const PackedTensor& w) {
  const std::size_t weights = std::size_t(w.panels()) * kLanes * std::size_t(w.k32());
  switch (arithmetic.compute) {
    case Compute::int8: {
      const Int8Shape shape = int8_shape(w);
      return align64(weights) + align64(weights / std::size_t(shape.group) * 4) +
             (shape.affine ? align64(weights / kGroup * 4) : 0);
    }
    case Compute::bf16:
      return align64(weights * 2);
    default:
      return align64(weights * 4);
  }
}

ComputePanels::ComputePanels(const Arithmetic& arithmetic, const PackedTensor& w, std::uint8_t* memory)
    : arithmetic_(&arithmetic), w_(&w), data_(memory) {
  if (arithmetic.compute != Compute::int8) return;
  const Int8Shape shape = int8_shape(w);
  group_ = shape.group;
  zero_ = shape.zero;
  const std::size_t weights = std::size_t(w.panels()) * kLanes * std::size_t(w.k32());
  scale_ = reinterpret_cast<float*>(memory + align64(weights));
  if (shape.affine)
    min_ = reinterpret_cast<float*>(memory + align64(weights) + align64(weights / std::size_t(group_) * 4));
}

void ComputePanels::unpack(std::int64_t p, float* scratch) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  const std::int64_t k32 = w_->k32(), weights = k32 * kLanes;
  switch (arithmetic_->compute) {
    case Compute::int8:
      kt.unpack_i8(w_->packing(), w_->panel(p), k32, data_ + p * weights, scale_ + p * weights / group_,
                   min_ ? min_ + p * weights / kGroup : nullptr);
      return;
    case Compute::bf16:
      kt.unpack_bf16(w_->packing(), w_->panel(p), k32, reinterpret_cast<std::uint16_t*>(data_) + p * weights);
      return;
    default:
      break;
  }
  float* out = reinterpret_cast<float*>(data_);
  if (!arithmetic_->blas) {
    kt.unpack_f32(w_->packing(), w_->panel(p), k32, out + p * weights);
    return;
  }
  kt.unpack_f32(w_->packing(), w_->panel(p), k32, scratch);
  for (std::int64_t k = 0; k < k32; ++k)
    std::memcpy(out + k * w_->rows16() + p * kLanes, scratch + k * kLanes, kLanes * sizeof(float));
}

std::size_t RowTile::bytes(const Arithmetic& arithmetic, std::int64_t rows, std::int64_t max_k) {
  const std::size_t n = std::size_t(rows) * std::size_t(round_up(max_k, kGroup));
  std::size_t total = n * sizeof(float);
  if (arithmetic.compute == Compute::int8) total += n + n / kGroup * sizeof(float) + n / 16 * sizeof(std::int32_t);
  if (arithmetic.compute == Compute::bf16) total += n * sizeof(std::uint16_t);
  return total;
}

RowTile::RowTile(const Arithmetic& arithmetic, std::int64_t rows, std::int64_t max_k) : arithmetic_(&arithmetic) {
  const std::size_t n = std::size_t(rows) * std::size_t(round_up(max_k, kGroup));
  x_ = Array<float>(n, "activation tile");
  if (arithmetic.compute == Compute::int8) {
    q_ = Array<std::int8_t>(n, "activation tile");
    scale_ = Array<float>(n / kGroup, "activation tile");
    sum_ = Array<std::int32_t>(n / 16, "activation tile");
  }
  if (arithmetic.compute == Compute::bf16) bf16_ = Array<std::uint16_t>(n, "activation tile");
}

void RowTile::prepare(const float* x, std::int64_t ldx, std::int64_t m, std::int64_t k) {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  m_ = m;
  k32_ = round_up(k, kGroup);
  for (std::int64_t i = 0; i < m; ++i) {
    float* row = x_.data() + i * k32_;
    std::memcpy(row, x + i * ldx, std::size_t(k) * sizeof(float));
    std::memset(row + k, 0, std::size_t(k32_ - k) * sizeof(float));
    if (arithmetic_->compute == Compute::int8)
      kt.quantize_i8(row, k32_, q_.data() + i * k32_, scale_.data() + i * (k32_ / kGroup),
                     sum_.data() + i * (k32_ / 16));
    if (arithmetic_->compute == Compute::bf16) kt.f32_to_bf16(row, k32_, bf16_.data() + i * k32_);
  }
}

void RowTile::multiply(const ComputePanels& w, float* c, std::int64_t ldc) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  const std::int64_t panels = w.w_->panels();
  check(w.w_->k32() == k32_, ErrorCode::internal, "RowTile::multiply: ", k32_, " inputs for ", w.w_->k32());
  switch (arithmetic_->compute) {
    case Compute::int8:
      kt.gemm_i8(m_, k32_, {q_.data(), scale_.data(), sum_.data()}, {w.data_, w.scale_, w.min_, w.group_, w.zero_},
                 panels, c, ldc);
      return;
    case Compute::bf16:
      kt.gemm_bf16(m_, k32_, bf16_.data(), k32_, reinterpret_cast<const std::uint16_t*>(w.data_), panels, c, ldc,
                   false);
      return;
    default:
      break;
  }
  const float* b = reinterpret_cast<const float*>(w.data_);
  if (arithmetic_->blas)
    arithmetic_->blas->gemm(m_, panels * kLanes, k32_, x_.data(), k32_, b, panels * kLanes, c, ldc);
  else
    kt.gemm_f32(m_, k32_, x_.data(), k32_, b, panels, c, ldc, false);
}

void RowTile::multiply_panel(const PackedTensor& w, std::int64_t p, float* scratch, float* out) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  switch (arithmetic_->compute) {
    case Compute::int8: {
      const Int8Shape shape = int8_shape(w);
      auto* q = reinterpret_cast<std::uint8_t*>(scratch);
      float* scale = scratch + k32_ * kLanes / 4;  // q takes a byte a weight
      float* min = shape.affine ? scale + k32_ * kLanes / shape.group : nullptr;
      kt.unpack_i8(w.packing(), w.panel(p), k32_, q, scale, min);
      kt.gemm_i8(m_, k32_, {q_.data(), scale_.data(), sum_.data()}, {q, scale, min, shape.group, shape.zero}, 1, out,
                 kLanes);
      return;
    }
    case Compute::bf16: {
      auto* panel = reinterpret_cast<std::uint16_t*>(scratch);
      kt.unpack_bf16(w.packing(), w.panel(p), k32_, panel);
      kt.gemm_bf16(m_, k32_, bf16_.data(), k32_, panel, 1, out, kLanes, false);
      return;
    }
    default:
      kt.unpack_f32(w.packing(), w.panel(p), k32_, scratch);
      kt.gemm_f32(m_, k32_, x_.data(), k32_, scratch, 1, out, kLanes, false);
  }
}

void RowTile::multiply_packed(const PackedTensor& w, std::int64_t p, std::int64_t count, float* out) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  for (std::int64_t i = 0; i < m_; ++i, out += count * kLanes) {
    if (arithmetic_->compute == Compute::int8 && !w.is_float())
      kt.gemv_i8(w.packing(), w.panel(p), k32_,
                 {q_.data() + i * k32_, scale_.data() + i * (k32_ / kGroup), sum_.data() + i * (k32_ / 16)}, count, out);
    else
      kt.gemv_f32(w.packing(), w.panel(p), k32_, x_.data() + i * k32_, count, out);
  }
}

}  // namespace fastkv::cpu
