// One weight matrix in the resident layout of simd/packed.hpp: made from a GGUF tensor at load, read by all kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model_desc.hpp"
#include "runtime/memory.hpp"
#include "runtime/placement.hpp"
#include "simd/packed.hpp"

namespace fastkv::cpu {

/// How a tensor type is packed.
simd::Packing packing_of(DType type);

/// Matrices that decode multiplies in one go share one list of panels, which its threads split: where a matrix begins
/// in it, and its length.
struct PanelList {
  std::int64_t begin, count;
};

/// [rows, cols] weights as panels of 16 rows; rows padded to 16 and cols to 32 with zero weights. On several memory
/// nodes each panel lies on the node whose threads read it, or each node has a copy of all (Placement).
class PackedTensor {
 public:
  PackedTensor() = default;
  /// Allocates and places; pack_panels() fills it.
  /// The first panel lies `skew` bytes behind the begin of a page, a multiple of 64.
  PackedTensor(const TensorView& source, const Placement& placement, PanelList list, HugePages huge_pages,
               std::size_t skew = 0);

  /// Packs panels [begin, end) from `source`, the tensor given to the constructor, into the calling thread's copy.
  void pack_panels(const TensorView& source, std::int64_t begin, std::int64_t end);
  int copies() const { return int(copies_.size()); }
  /// Panels [begin, end) of copy `to` = those of copy `from`.
  void copy_panels(int from, int to, std::int64_t begin, std::int64_t end);

  simd::Packing packing() const { return packing_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  std::int64_t k32() const { return k32_; }  ///< cols rounded up to 32
  std::int64_t panels() const { return panels_; }
  std::int64_t rows16() const { return panels_ * simd::kLanes; }
  /// In the calling thread's copy.
  const std::uint8_t* panel(std::int64_t p) const { return data(own_copy()) + std::size_t(p) * panel_bytes_; }
  std::size_t panel_bytes() const { return panel_bytes_; }
  const std::vector<Buffer>& memory() const { return copies_; }
  bool is_float() const { return simd::info(packing_).scale_group == 0; }
  explicit operator bool() const { return rows_ > 0; }

  /// Row `row` as float32 [cols], exactly as dequantised from the file.
  void read_row(std::int64_t row, float* out) const;

  /// Bytes that a tensor takes when packed, once.
  static std::size_t packed_bytes(const TensorView& source);
  static std::int64_t panels_of(const TensorView& source);

 private:
  int own_copy() const { return copies_.size() == 1 ? 0 : current_node(); }
  std::uint8_t* data(int copy) const { return copies_[std::size_t(copy)].as<std::uint8_t>() + skew_; }

  simd::Packing packing_ = simd::Packing::f32;
  std::int64_t rows_ = 0, cols_ = 0, k32_ = 0, panels_ = 0;
  std::size_t panel_bytes_ = 0, skew_ = 0;
  std::vector<Buffer> copies_;  ///< [1], or [nodes] under mirror
};

}  // namespace fastkv::cpu
