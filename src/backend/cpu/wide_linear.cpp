// Choosing blocks that fit a core's L2 and number enough for the threads.
#include "backend/cpu/wide_linear.hpp"

#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

using simd::kLanes;

/// Unpacked weights of a block: half of a 2 MiB L2. Wider blocks read the rows fewer times: 256 outputs of 2,048 inputs
/// in bfloat16 reach 1.7 TFLOP/s with AMX where rows kept in L2 and weights streamed from memory reach 1.1.
constexpr std::int64_t kBlockBytes = 1 << 20;
constexpr std::int64_t kMaxPanels = 32;
constexpr std::int64_t kUnit = 8;  ///< panels
constexpr std::int64_t kItemsPerThread = 2;

/// Multiples of the rows of the kernels' tiles: 7, 4, 2 of int8; 32, 12, 6, 2.
std::int64_t whole_tiles(const Arithmetic& arithmetic) { return arithmetic.compute == Compute::int8 ? 112 : 96; }

}  // namespace

WideShape::WideShape(const Arithmetic& arithmetic, int matrices, std::int64_t outputs, std::int64_t k32,
                     std::int64_t rows, int threads)
    : inputs(chunk_inputs(arithmetic, k32)),
      unit(matrices > 1 ? column_unit(arithmetic) / kLanes : kUnit),
      panels(unit),
      part_rows(rows),
      strip_rows(std::min(rows, whole_tiles(arithmetic))) {
  const std::int64_t all = ceil_div(outputs, kLanes);
  const std::int64_t each = std::int64_t(panel_bytes(arithmetic)) / unit;
  std::int64_t wanted = kMaxPanels / matrices;
  if (arithmetic.blas) {
    // Its results may depend on the shape of a call, which therefore may not depend on the threads; it blocks by
    // itself.
    strip_rows = rows;
  } else {
    wanted = std::min(wanted, kBlockBytes / each / matrices);
    wanted = std::min(wanted, ceil_div(all, kItemsPerThread * threads));
  }
  panels = std::min(std::max(wanted / unit, std::int64_t(1)) * unit, all);
  const std::int64_t blocks = ceil_div(all, panels);
  if (!arithmetic.blas && blocks < kItemsPerThread * threads) {
    const std::int64_t parts = ceil_div(kItemsPerThread * threads, blocks);
    part_rows = std::min(rows, round_up(ceil_div(rows, parts), whole_tiles(arithmetic)));
  }
  held_rows = inputs < k32 ? part_rows : strip_rows;
}

std::size_t WideShape::panel_bytes(const Arithmetic& arithmetic) const {
  return ComputePanels::bytes(arithmetic, panels, inputs);
}

WideLinear::WideLinear(const Arithmetic& arithmetic, std::initializer_list<const Linear*> matrices, Range rows,
                       int threads)
    : arithmetic_(&arithmetic),
      matrices_(matrices),
      rows_(rows),
      shape_(arithmetic, int(matrices.size()), matrices_[0]->w.rows(), matrices_[0]->w.k32(), rows.end - rows.begin,
             threads) {
  blocks_ = ceil_div(matrices_[0]->w.panels(), shape_.panels);
  parts_ = ceil_div(rows.end - rows.begin, std::max<std::int64_t>(1, shape_.part_rows));
}

std::int64_t WideLinear::first_panel(std::int64_t block) const {
  const std::int64_t all = matrices_[0]->w.panels();
  return std::min(all, ceil_div(all, shape_.unit) * block / blocks_ * shape_.unit);
}

ComputePanels WideLinear::panels(std::size_t matrix, std::int64_t first, std::int64_t count, std::int64_t k0,
                                 const WideSpace& space) const {
  const Linear& linear = *matrices_[matrix];
  if (!linear.kept.empty()) return linear.kept[std::size_t(k0 / shape_.inputs)].slice(first, count);
  const ComputePanels block(*arithmetic_, linear.w, first, count, k0, std::min(shape_.inputs, linear.w.k32() - k0),
                            space.panels.as<std::uint8_t>() + matrix * shape_.panel_bytes(*arithmetic_));
  for (std::int64_t i = 0; i < count; ++i) block.unpack(i, space.scratch.data());
  return block;
}

}  // namespace fastkv::cpu
