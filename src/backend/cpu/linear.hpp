// Linear layers on a tile of rows, in the arithmetic of --compute: weights unpacked into compute panels, activations
// quantised or rounded to match.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cpu/gemm_openblas.hpp"
#include "backend/cpu/packed_tensor.hpp"
#include "fastkv/options.hpp"
#include "runtime/memory.hpp"
#include "simd/kernels.hpp"

namespace fastkv::cpu {

/// Which arithmetic, and with which kernels. Resolved: compute is not automatic.
struct Arithmetic {
  Compute compute = Compute::f32;
  const simd::KernelTable* kernels = nullptr;
  const OpenBlas* blas = nullptr;  ///< f32 only; null: own kernels
  bool bf16_attention = false;                   ///< attention's dot products: bfloat16, or float32
};

/// One weight matrix unpacked for prefill:
///   int8     q [P][K32/4][16][4] uint8, scale [P][K32/group][16], min [P][K32/32][16]
///   bf16     [P][K32/2][16][2]
///   f32      [P][K32][16]; for OpenBLAS [K32][16·P] row-major
class ComputePanels {
 public:
  static std::size_t bytes(const Arithmetic& arithmetic, const PackedTensor& w);
  /// A view on `memory` (64-byte aligned, bytes() of them); unpack() fills it.
  ComputePanels(const Arithmetic& arithmetic, const PackedTensor& w, std::uint8_t* memory);
  /// Panel `p`; any thread, each panel once. `scratch`: float [K32][16], used for OpenBLAS only.
  void unpack(std::int64_t p, float* scratch) const;
  const PackedTensor& weights() const { return *w_; }

 private:
  friend class RowTile;
  const Arithmetic* arithmetic_;
  const PackedTensor* w_;
  std::uint8_t* data_;                       ///< q, bf16 or f32
  float *scale_ = nullptr, *min_ = nullptr;  ///< int8 only
  int group_ = simd::kGroup, zero_ = 0;      ///< int8 only
};

/// Up to `rows` activation rows of one thread, prepared once and multiplied with several matrices.
class RowTile {
 public:
  /// Room for tiles of `rows` × `max_k` inputs.
  RowTile(const Arithmetic& arithmetic, std::int64_t rows, std::int64_t max_k);
  static std::size_t bytes(const Arithmetic& arithmetic, std::int64_t rows, std::int64_t max_k);

  /// x [m, ldx] float32, the first k of each row.
  void prepare(const float* x, std::int64_t ldx, std::int64_t m, std::int64_t k);
  /// c [m, ldc ≥ 16·P] = x · Wᵀ for the rows prepared.
  void multiply(const ComputePanels& w, float* c, std::int64_t ldc) const;
  /// out [m, 16] = the rows prepared · panel `p` of packed weights, in the arithmetic of multiply() and, for own
  /// kernels, bitwise its columns 16p .. 16p+15. `scratch`: float [K32][16].
  void multiply_panel(const PackedTensor& w, std::int64_t p, float* scratch, float* out) const;
  /// For decode: out [m, 16·count] = the rows prepared · panels p .. p+count−1. They are read once from memory; float
  /// weights and float32 or bf16 arithmetic take the activations in float32.
  void multiply_packed(const PackedTensor& w, std::int64_t p, std::int64_t count, float* out) const;

 private:
  const Arithmetic* arithmetic_;
  std::int64_t m_ = 0, k32_ = 0;
  Array<float> x_;  ///< [rows, K32] zero-padded copy (f32; float weights in decode)
  Array<std::int8_t> q_;
  Array<float> scale_;
  Array<std::int32_t> sum_;
  Array<std::uint16_t> bf16_;
};

}  // namespace fastkv::cpu
