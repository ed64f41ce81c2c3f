// The kept K and V rows of one layer on a CPU: per stored head a contiguous run of blocks with room for decode.
#pragma once

#include <vector>

#include "backend/backend.hpp"
#include "backend/cpu/attention.hpp"
#include "backend/cpu/handles.hpp"
#include "runtime/parallel.hpp"
#include "runtime/placement.hpp"
#include "simd/kernels.hpp"

namespace fastkv::cpu {

simd::RowType row_type(CacheType type);

class CpuLayerCache final : public LayerCache {
 public:
  /// Room for the rows of `keep` and `format.reserve` more per stored head of width d; heads one after another over the
  /// memory nodes, as decode's threads read them.
  CpuLayerCache(const simd::KernelTable& kernels, const CpuSelection& keep, const CacheFormat& format, int d,
                const Placement& placement, HugePages huge_pages);

  std::int64_t length(int head) const override { return heads_[std::size_t(head)].kept + appended(); }
  std::size_t bytes() const override;
  void read_row(int head, std::int64_t row, float* key, float* value) const override;

  int heads() const { return int(heads_.size()); }
  simd::RowType k_type() const { return k_type_; }
  simd::RowType v_type() const { return v_type_; }
  /// The blocks of simd::kCacheRows rows from the one with `row` on.
  std::byte* blocks(int head, std::int64_t row) const {
    return blocks_.as<>() + (heads_[std::size_t(head)].first + std::size_t(row / simd::kCacheRows)) * block_bytes_;
  }
  /// Writes a row that exists: float32 [d], rounded once.
  void write_row(int head, std::int64_t row, const float* key, const float* value) const;

 private:
  struct Head {
    std::size_t first;  ///< block
    std::int64_t kept;  ///< rows of the prompt
  };
  void allocate(std::int64_t reserve) override;

  const simd::KernelTable* kernels_;
  simd::RowType k_type_, v_type_;
  std::size_t block_bytes_;
  int d_;
  Placement placement_;
  HugePages huge_pages_;
  std::vector<Head> heads_;
  Buffer blocks_;
};

/// Copies the rows of `keep` from a layer's K and V, rounded once.
std::unique_ptr<CpuLayerCache> store(const simd::KernelTable& kernels, ThreadTeam& team, const AttentionShape& shape,
                                     const CpuLayerState& state, const CpuSelection& keep, const CacheFormat& format,
                                     const Placement& placement, HugePages huge_pages);

}  // namespace fastkv::cpu
