// One weight matrix in the resident layout of simd/packed.hpp: made from a GGUF tensor at load, read by all kernels.
#pragma once

#include <cstdint>

#include "core/model_desc.hpp"
#include "runtime/memory.hpp"
#include "simd/packed.hpp"

namespace fastkv::cpu {

/// How a tensor type is packed.
simd::Packing packing_of(DType type);

/// [rows, cols] weights as panels of 16 rows; rows padded to 16 and cols to 32 with zero weights.
class PackedTensor {
 public:
  PackedTensor() = default;
  /// Allocates; pack_panels() fills it.
  PackedTensor(const TensorView& source, HugePages huge_pages);

  /// Packs panels [begin, end) from `source`, the tensor given to the constructor.
  void pack_panels(const TensorView& source, std::int64_t begin, std::int64_t end);

  simd::Packing packing() const { return packing_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  std::int64_t k32() const { return k32_; }  ///< cols rounded up to 32
  std::int64_t panels() const { return panels_; }
  std::int64_t rows16() const { return panels_ * simd::kLanes; }
  const std::uint8_t* panel(std::int64_t p) const { return data_.as<std::uint8_t>() + std::size_t(p) * panel_bytes_; }
  std::size_t panel_bytes() const { return panel_bytes_; }
  std::size_t bytes() const { return data_.bytes(); }
  bool is_float() const { return simd::info(packing_).scale_group == 0; }
  explicit operator bool() const { return rows_ > 0; }

  /// Row `row` as float32 [cols], exactly as dequantised from the file.
  void read_row(std::int64_t row, float* out) const;

  /// Bytes that a tensor takes when packed.
  static std::size_t packed_bytes(const TensorView& source);

 private:
  simd::Packing packing_ = simd::Packing::f32;
  std::int64_t rows_ = 0, cols_ = 0, k32_ = 0, panels_ = 0;
  std::size_t panel_bytes_ = 0;
  Buffer data_;
};

}  // namespace fastkv::cpu
