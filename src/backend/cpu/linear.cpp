// Unpacking weights into compute panels and multiplying row tiles with them.
#include "backend/cpu/linear.hpp"

#include <cstring>

#include "core/check.hpp"
#include "core/round.hpp"
#include "runtime/fetch.hpp"

namespace fastkv::cpu {
namespace {

using simd::kGroup;
using simd::kLanes;

std::size_t align64(std::size_t n) { return (n + 63) / 64 * 64; }

// Inputs as int8 panels have them, and the float scales of one row or lane.
std::int64_t rotated(std::int64_t k) { return round_up(k, simd::kRotation); }
std::int64_t scales(const Arithmetic& arithmetic, std::int64_t k) {
  return ceil_div(rotated(k), arithmetic.kernels->wide_group);
}

// Elements from one bf16 row to the next: twice an odd number of 64-byte lines, so that pieces of 32 rows, which wait
// in L1 while panels pass, share its 64 sets evenly (69 % of AMX's peak; with one line more than 4 KiB 59 %).
std::int64_t row_stride(std::int64_t k) { return (ceil_div(k, 64) | 1) * 64; }

}  // namespace

std::int64_t chunk_inputs(const Arithmetic& arithmetic, std::int64_t k32) {
  if (arithmetic.compute == Compute::int8 || arithmetic.blas) return k32;
  const std::int64_t limit = arithmetic.compute == Compute::bf16 ? 2560 : 1280;
  return round_up(ceil_div(k32, ceil_div(k32, limit)), 256);
}

std::size_t ComputePanels::bytes(const Arithmetic& arithmetic, std::int64_t count, std::int64_t inputs) {
  const std::size_t weights = std::size_t(count) * kLanes * std::size_t(inputs);
  switch (arithmetic.compute) {
    case Compute::int8:
      return std::size_t(count) * kLanes *
             (std::size_t(rotated(inputs)) + std::size_t(scales(arithmetic, inputs)) * sizeof(float));
    case Compute::bf16:
      return align64(weights * 2);
    default:
      return align64(weights * 4);
  }
}

ComputePanels::ComputePanels(const Arithmetic& arithmetic, const PackedTensor& w, std::int64_t first,
                             std::int64_t count, std::int64_t k0, std::int64_t inputs, std::uint8_t* memory)
    : arithmetic_(&arithmetic),
      w_(&w),
      first_(first),
      count_(count),
      k0_(k0),
      inputs_(inputs),
      ldb_(count * kLanes),
      data_(memory) {
  if (arithmetic.compute == Compute::int8) scale_ = reinterpret_cast<float*>(memory + count * kLanes * rotated(inputs));
}

void ComputePanels::unpack(std::int64_t i, float* scratch) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  const std::int64_t weights = inputs_ * kLanes;
  const std::uint8_t* from = w_->panel(first_ + i) + simd::panel_bytes(w_->packing(), k0_);
  switch (arithmetic_->compute) {
    case Compute::int8:
      kt.unpack_i8(w_->packing(), from, inputs_, data_ + i * kLanes * rotated(inputs_),
                   scale_ + i * kLanes * scales(*arithmetic_, inputs_));
      return;
    case Compute::bf16:
      kt.unpack_bf16(w_->packing(), from, inputs_, reinterpret_cast<std::uint16_t*>(data_) + i * weights);
      return;
    default:
      break;
  }
  float* out = reinterpret_cast<float*>(data_);
  if (!arithmetic_->blas) {
    kt.unpack_f32(w_->packing(), from, inputs_, out + i * weights);
    return;
  }
  kt.unpack_f32(w_->packing(), from, inputs_, scratch);
  for (std::int64_t k = 0; k < inputs_; ++k)
    std::memcpy(out + k * ldb_ + i * kLanes, scratch + k * kLanes, kLanes * sizeof(float));
}

ComputePanels ComputePanels::slice(std::int64_t i, std::int64_t count) const {
  ComputePanels part = *this;
  const std::int64_t weights = i * inputs_ * kLanes;
  part.first_ += i;
  part.count_ = count;
  if (arithmetic_->compute == Compute::int8) {
    part.data_ += i * kLanes * rotated(inputs_);
    part.scale_ += i * kLanes * scales(*arithmetic_, inputs_);
  } else if (arithmetic_->blas) {
    part.data_ += i * kLanes * std::int64_t(sizeof(float));
  } else {
    part.data_ += weights * (arithmetic_->compute == Compute::bf16 ? 2 : 4);
  }
  return part;
}

bool ComputePanels::join(const ComputePanels& next) {
  if (arithmetic_->compute == Compute::int8 || arithmetic_->blas) return false;
  if (data_ + count_ * kLanes * inputs_ * (arithmetic_->compute == Compute::bf16 ? 2 : 4) != next.data_) return false;
  count_ += next.count_;
  return true;
}

std::size_t RowTile::bytes(const Arithmetic& arithmetic, LinearUse use, std::int64_t rows, std::int64_t max_k) {
  const std::size_t n = std::size_t(rows) * std::size_t(rotated(max_k));
  std::size_t total = use == LinearUse::decode || arithmetic.compute == Compute::f32 ? n * sizeof(float) : 0;
  if (arithmetic.compute == Compute::int8) total += n + n / kGroup * sizeof(float) + n / 16 * sizeof(std::int32_t);
  if (arithmetic.compute == Compute::bf16)
    total += std::size_t(rows) * std::size_t(row_stride(max_k)) * sizeof(std::uint16_t);
  return total;
}

RowTile::RowTile(const Arithmetic& arithmetic, LinearUse use, std::int64_t rows, std::int64_t max_k,
                 HugePages huge_pages)
    : arithmetic_(&arithmetic), use_(use) {
  const std::size_t n = std::size_t(rows) * std::size_t(rotated(max_k));
  if (use == LinearUse::decode || arithmetic.compute == Compute::f32)
    x_ = Array<float>(n, "activation rows", huge_pages);
  if (arithmetic.compute == Compute::int8) {
    q_ = Array<std::int8_t>(n, "activation rows", huge_pages);
    scale_ = Array<float>(n / kGroup, "activation rows", huge_pages);
    sum_ = Array<std::int32_t>(n / 16, "activation rows", huge_pages);
  }
  if (arithmetic.compute == Compute::bf16)
    bf16_ = Array<std::uint16_t>(std::size_t(rows) * std::size_t(row_stride(max_k)), "activation rows", huge_pages);
}

void RowTile::begin(std::int64_t m, std::int64_t k) {
  m_ = m;
  k_ = k;
  k32_ = round_up(k, kGroup);
  ld_ = row_stride(k);
}

void RowTile::prepare(std::int64_t i, std::int64_t first, std::int64_t n, const float* x, bool floats) {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  const std::int64_t padding = first + n == k_ ? k32_ - k_ : 0;
  if (x_.data() && (floats || arithmetic_->compute != Compute::int8)) {
    float* row = x_.data() + i * k32_ + first;
    std::memcpy(row, x, std::size_t(n) * sizeof(float));
    std::memset(row + n, 0, std::size_t(padding) * sizeof(float));
  }
  if (arithmetic_->compute == Compute::int8 && use_ == LinearUse::prefill) {
    const std::int64_t group = i * scales(*arithmetic_, k_) + first / kt.wide_group;
    kt.rotate_i8(x, n, q_.data() + i * rotated(k_) + first, scale_.data() + group, sum_.data() + group);
  } else if (arithmetic_->compute == Compute::int8) {
    kt.quantize_i8(x, n, q_.data() + i * k32_ + first, scale_.data() + (i * k32_ + first) / kGroup,
                   sum_.data() + (i * k32_ + first) / 16);
  }
  if (arithmetic_->compute == Compute::bf16) {
    std::uint16_t* row = bf16_.data() + i * ld_ + first;
    kt.f32_to_bf16(x, n, row);
    std::memset(row + n, 0, std::size_t(padding) * sizeof(std::uint16_t));
  }
}

void RowTile::prepare_all(const float* x, std::int64_t ldx, std::int64_t m, std::int64_t k, bool floats) {
  begin(m, k);
  for (std::int64_t i = 0; i < m; ++i) prepare(i, 0, k, x + i * ldx, floats);
}

void RowTile::fetch(std::int64_t i, std::int64_t first, std::int64_t n) const {
  const std::int64_t at = i * k32_ + first;
  if (arithmetic_->compute != Compute::int8) return fetch_lines(x_.data() + at, n * std::int64_t(sizeof(float)));
  fetch_lines(q_.data() + at, n);
  fetch_lines(scale_.data() + at / kGroup, n / kGroup * std::int64_t(sizeof(float)));
  fetch_lines(sum_.data() + at / 16, n / 16 * std::int64_t(sizeof(std::int32_t)));
}

void RowTile::multiply(const ComputePanels& w, std::int64_t row, std::int64_t m, float* c, std::int64_t ldc) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  check(w.w_->k32() == k32_, ErrorCode::internal, "RowTile::multiply: ", k32_, " inputs for ", w.w_->k32());
  switch (arithmetic_->compute) {
    case Compute::int8: {
      const std::int64_t k64 = rotated(k32_), groups = scales(*arithmetic_, k32_);
      kt.gemm_i8(m, k64, {q_.data() + row * k64, scale_.data() + row * groups, sum_.data() + row * groups},
                 {w.data_, w.scale_}, w.count_, c, ldc);
      return;
    }
    case Compute::bf16:
      kt.gemm_bf16(m, w.inputs_, bf16_.data() + row * ld_ + w.k0_, ld_, reinterpret_cast<const std::uint16_t*>(w.data_),
                   w.count_, c, ldc, w.k0_ > 0);
      return;
    default:
      break;
  }
  const float* b = reinterpret_cast<const float*>(w.data_);
  const float* x = x_.data() + row * k32_ + w.k0_;
  if (arithmetic_->blas)
    arithmetic_->blas->gemm(m, w.count_ * kLanes, k32_, x, k32_, b, w.ldb_, c, ldc);
  else
    kt.gemm_f32(m, w.inputs_, x, k32_, b, w.count_, c, ldc, w.k0_ > 0);
}

void RowTile::multiply_panel(const PackedTensor& w, std::int64_t p, float* scratch, float* out) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  switch (arithmetic_->compute) {
    case Compute::int8: {
      auto* q = reinterpret_cast<std::uint8_t*>(scratch);
      float* scale = scratch + rotated(k32_) * kLanes / 4;  // q takes a byte a weight
      kt.unpack_i8(w.packing(), w.panel(p), k32_, q, scale);
      kt.gemm_i8(m_, rotated(k32_), {q_.data(), scale_.data(), sum_.data()}, {q, scale}, 1, out, kLanes);
      return;
    }
    case Compute::bf16: {
      auto* panel = reinterpret_cast<std::uint16_t*>(scratch);
      kt.unpack_bf16(w.packing(), w.panel(p), k32_, panel);
      kt.gemm_bf16(m_, k32_, bf16_.data(), ld_, panel, 1, out, kLanes, false);
      return;
    }
    default:
      kt.unpack_f32(w.packing(), w.panel(p), k32_, scratch);
      kt.gemm_f32(m_, k32_, x_.data(), k32_, scratch, 1, out, kLanes, false);
  }
}

void RowTile::multiply_packed(const PackedTensor& w, const simd::PanelRuns& runs, float* out, std::int64_t ldo) const {
  const simd::KernelTable& kt = *arithmetic_->kernels;
  for (std::int64_t i = 0; i < m_; ++i, out += ldo) {
    if (arithmetic_->compute == Compute::int8 && !w.is_float())
      kt.gemv_i8(w.packing(), runs, k32_,
                 {q_.data() + i * k32_, scale_.data() + i * (k32_ / kGroup), sum_.data() + i * (k32_ / 16)}, out);
    else
      kt.gemv_f32(w.packing(), runs, k32_, x_.data() + i * k32_, out);
  }
}

}  // namespace fastkv::cpu
