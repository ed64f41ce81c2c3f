// Linear layers on many rows: a work item is a block of outputs, whose weights a thread unpacks into its core's L2,
// times rows that stream past it; what follows a product (bias, rotation, SwiGLU, residual) is done while its sums are
// in cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cpu/weights.hpp"
#include "core/stage_clock.hpp"
#include "runtime/parallel.hpp"

namespace fastkv::cpu {

/// How a product is cut up. Results do not depend on it: a sum runs over all inputs in order wherever it is computed.
struct WideShape {
  std::int64_t inputs;      ///< of a chunk (chunk_inputs)
  std::int64_t unit;        ///< panels: a block begins at a multiple, so that what two matrices make can be quantised
  std::int64_t panels;      ///< of a block, each matrix, at most
  std::int64_t part_rows;   ///< rows of an item
  std::int64_t strip_rows;  ///< rows of a call of the kernel, and of the epilogue
  std::int64_t held_rows;   ///< rows whose sums an item holds: a part's if there are several chunks, else a strip's

  /// For `matrices` of [outputs, k32] side by side, and `rows` rows; enough items for `threads`.
  WideShape(const Arithmetic& arithmetic, int matrices, std::int64_t outputs, std::int64_t k32, std::int64_t rows,
            int threads);
  std::size_t panel_bytes(const Arithmetic& arithmetic) const;  ///< compute layout of a block of one matrix, at most
  std::int64_t out_stride(int matrices) const { return matrices * panels * simd::kLanes + simd::kLanes; }
};

/// One thread's work space for items of any shape that fits.
struct WideSpace {
  Buffer panels;         ///< a block of each matrix, unpacked
  Array<float> out;      ///< [held_rows, out_stride]
  Array<float> scratch;  ///< [K][16] for OpenBLAS' layout
};

/// One matrix, or two of the same shape, times some rows of a RowTile.
class WideLinear {
 public:
  WideLinear(const Arithmetic& arithmetic, std::initializer_list<const Linear*> matrices, Range rows, int threads);

  std::int64_t items() const { return blocks_ * parts_; }
  /// epilogue(row, m, first, n, y, ldy): y [m, ldy] holds outputs [first, first + n) of rows [row, row + m), bias
  /// included; a second matrix' at y + 16·shape.panels. Calls control.poll() if `polls`; `watch` is running.
  template <class Epilogue>
  void run(std::int64_t item, const RowTile& x, const WideSpace& space, RunControl& control, bool polls,
           StageWatch& watch, const Epilogue& epilogue) const;
  const WideShape& shape() const { return shape_; }

 private:
  /// Blocks differ by a unit at most, lest the last one be a small one that keeps a thread alone with another's rest.
  std::int64_t first_panel(std::int64_t block) const;
  ComputePanels panels(std::size_t matrix, std::int64_t first, std::int64_t count, std::int64_t k0,
                       const WideSpace& space) const;

  const Arithmetic* arithmetic_;
  std::vector<const Linear*> matrices_;
  Range rows_;
  std::int64_t blocks_, parts_;
  WideShape shape_;
};

template <class Epilogue>
void WideLinear::run(std::int64_t item, const RowTile& x, const WideSpace& space, RunControl& control, bool polls,
                     StageWatch& watch, const Epilogue& epilogue) const {
  const PackedTensor& w = matrices_[0]->w;
  const std::int64_t begin = rows_.begin + item % parts_ * shape_.part_rows;
  const std::int64_t end = std::min(rows_.end, begin + shape_.part_rows);
  const std::int64_t first = first_panel(item / parts_), count = first_panel(item / parts_ + 1) - first;
  const std::int64_t outputs = std::min(count * simd::kLanes, w.rows() - first * simd::kLanes);
  const std::int64_t ldy = shape_.out_stride(int(matrices_.size()));
  const bool chunked = shape_.inputs < w.k32();
  for (std::int64_t k0 = 0; k0 < w.k32(); k0 += shape_.inputs) {
    std::vector<ComputePanels> blocks;
    for (std::size_t i = 0; i < matrices_.size(); ++i) blocks.push_back(panels(i, first, count, k0, space));
    if (blocks.size() == 2 && blocks[0].join(blocks[1])) blocks.pop_back();
    watch.lap(Stage::unpack);
    for (std::int64_t row = begin; row < end && !control.stopping(); row += shape_.strip_rows) {
      const std::int64_t m = std::min(shape_.strip_rows, end - row);
      float* y = space.out.data() + (chunked ? (row - begin) * ldy : 0);
      for (std::size_t i = 0; i < blocks.size(); ++i)
        x.multiply(blocks[i], row, m, y + std::int64_t(i) * shape_.panels * simd::kLanes, ldy);
      watch.lap(Stage::gemm);
      if (k0 + shape_.inputs < w.k32()) continue;
      for (std::size_t i = 0; i < matrices_.size(); ++i)
        matrices_[i]->add_bias(*arithmetic_->kernels, first * simd::kLanes, outputs,
                               y + std::int64_t(i) * shape_.panels * simd::kLanes, ldy, m);
      epilogue(row, m, first * simd::kLanes, outputs, y, ldy);
      watch.lap(Stage::rest);
      if (polls) control.poll();
    }
  }
  control.add_work(2.0 * double(end - begin) * double(outputs) * double(w.cols()) * double(matrices_.size()));
}

}  // namespace fastkv::cpu
