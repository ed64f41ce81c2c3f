// Linear layers on a tile of rows, in the arithmetic of --compute: weights unpacked into compute panels, activations
// quantised or rounded to match.
#pragma once

#include <algorithm>
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
  bool bf16_attention = false;     ///< attention's dot products: bfloat16, or float32
};

/// Inputs that are unpacked and multiplied together, a function of the arithmetic and K alone: all of them for int8 and
/// OpenBLAS, else pieces of K that leave room in L2 for a wide block (a multiple of every packing's block).
std::int64_t chunk_inputs(const Arithmetic& arithmetic, std::int64_t k32);

/// Panels [first, first + count) and inputs [k0, k0 + inputs) of a weight matrix in compute layout:
///   int8     q [count][K64/4][16][4] uint8, scale [count][G][16] (simd::RotatedPanels)
///   bf16     [count][K/2][16][2]
///   f32      [count][K][16]; for OpenBLAS [K][16·count] row-major
/// with K = inputs.
class ComputePanels {
 public:
  static std::size_t bytes(const Arithmetic& arithmetic, std::int64_t count, std::int64_t inputs);
  /// A view on `memory` (64-byte aligned, bytes() of them); unpack() fills it.
  ComputePanels(const Arithmetic& arithmetic, const PackedTensor& w, std::int64_t first, std::int64_t count,
                std::int64_t k0, std::int64_t inputs, std::uint8_t* memory);
  /// Panel first + i; any thread, each panel once. `scratch`: float [K][16], used for OpenBLAS only.
  void unpack(std::int64_t i, float* scratch) const;
  /// The panels first + i .. first + i + count − 1.
  ComputePanels slice(std::int64_t i, std::int64_t count) const;
  /// Makes this and `next` one operand if they lie side by side, so that rows in L1 pass both at once.
  bool join(const ComputePanels& next);
  std::int64_t count() const { return count_; }

 private:
  friend class RowTile;
  const Arithmetic* arithmetic_;
  const PackedTensor* w_;
  std::int64_t first_, count_, k0_, inputs_;
  std::int64_t ldb_;        ///< OpenBLAS only
  std::uint8_t* data_;      ///< q, bf16 or f32
  float* scale_ = nullptr;  ///< int8 only
};

/// Whose arithmetic: prefill's, or decode's, which takes the weights from their packed form, read once.
enum class LinearUse { prefill, decode };

/// silu(gate) ∘ up for a RowTile of `use`: as exact as what the tile makes of it. int8 is finer than bfloat16 for the
/// largest values of a group: with the narrow one 1 % fewer best tokens agreed with float32's (SmolLM2).
inline auto silu_mul(const Arithmetic& arithmetic, LinearUse use) {
  const simd::KernelTable& kt = *arithmetic.kernels;
  return use == LinearUse::prefill && arithmetic.compute == Compute::bf16 ? kt.silu_mul_narrow : kt.silu_mul;
}

/// A piece of a RowTile's row that is prepared by itself begins at a multiple of this: where a scale of int8 begins.
inline std::int64_t column_unit(const Arithmetic& arithmetic) {
  return arithmetic.compute == Compute::int8 ? std::max(128, arithmetic.kernels->wide_group) : 128;
}

/// Activation rows [rows, K] in the arithmetic's form, prepared once and multiplied with several matrices. Different
/// rows may be prepared by different threads; a row's columns too, in pieces that begin at multiples of column_unit().
class RowTile {
 public:
  RowTile() = default;
  /// Room for `rows` rows of `max_k` inputs; for decode as float32 too.
  RowTile(const Arithmetic& arithmetic, LinearUse use, std::int64_t rows, std::int64_t max_k,
          HugePages huge_pages = HugePages::automatic);
  static std::size_t bytes(const Arithmetic& arithmetic, LinearUse use, std::int64_t rows, std::int64_t max_k);

  /// What follows concerns m rows of k inputs.
  void begin(std::int64_t m, std::int64_t k);
  /// Row i, columns [first, first + n) from x; n is a multiple of column_unit() or reaches K. For decode in int8, float
  /// matrices can be multiplied only if `floats`.
  void prepare(std::int64_t i, std::int64_t first, std::int64_t n, const float* x, bool floats = true);
  /// begin(), then all of x [m, ldx] float32, the first k of each row.
  void prepare_all(const float* x, std::int64_t ldx, std::int64_t m, std::int64_t k, bool floats = true);
  /// Brings columns of a row for decode nearer, all at once: before they are prepared, or multiplied when other threads
  /// have prepared them.
  void fetch(std::int64_t i, std::int64_t first, std::int64_t n) const;
  /// For prefill: c [m, ldc ≥ 16·count] = rows [row, row + m) · Wᵀ over w's inputs; += unless w begins at input 0.
  void multiply(const ComputePanels& w, std::int64_t row, std::int64_t m, float* c, std::int64_t ldc) const;
  /// out [m, 16] = the rows prepared · panel `p` of packed weights, in the arithmetic of multiply() and, for own
  /// kernels, bitwise its columns 16p .. 16p+15. `scratch`: float [K32][16].
  void multiply_panel(const PackedTensor& w, std::int64_t p, float* scratch, float* out) const;
  /// For decode: out [m, ldo] = the rows prepared · one or two runs of panels of weights like `w` (PanelRuns). They are
  /// read once from memory; float weights and float32 or bf16 arithmetic take the activations in float32.
  void multiply_packed(const PackedTensor& w, const simd::PanelRuns& runs, float* out, std::int64_t ldo) const;

 private:
  const Arithmetic* arithmetic_;
  LinearUse use_ = LinearUse::prefill;
  std::int64_t m_ = 0, k_ = 0, k32_ = 0;
  std::int64_t ld_ = 0;  ///< of bf16 rows
  Array<float> x_;       ///< [rows, K32] zero-padded copy (f32; float weights in decode)
  Array<std::int8_t> q_;
  Array<float> scale_;
  Array<std::int32_t> sum_;
  Array<std::uint16_t> bf16_;
};

}  // namespace fastkv::cpu
