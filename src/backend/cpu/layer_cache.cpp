// Storing, growing and reading the cache of a layer.
#include "backend/cpu/layer_cache.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {

simd::RowType row_type(CacheType type) {
  switch (type) {
    case CacheType::f32:
      return simd::RowType::f32;
    case CacheType::f16:
      return simd::RowType::f16;
    case CacheType::bf16:
      return simd::RowType::bf16;
    case CacheType::q8_0:
      return simd::RowType::q8_0;
    case CacheType::automatic:
      break;
  }
  fail(ErrorCode::internal, "row_type: unresolved cache type");
}

CpuLayerCache::CpuLayerCache(const simd::KernelTable& kernels, const CpuSelection& keep, const CacheFormat& format,
                             int d, const Placement& placement, HugePages huge_pages)
    : kernels_(&kernels),
      k_type_(row_type(format.k)),
      v_type_(row_type(format.v)),
      block_bytes_(simd::cache_block_bytes(k_type_, v_type_, d)),
      d_(d),
      placement_(placement),
      huge_pages_(huge_pages) {
  for (const auto& rows : keep.rows) heads_.push_back({0, std::int64_t(rows.size())});
  allocate(format.reserve);
}

void CpuLayerCache::allocate(std::int64_t reserve) {
  std::vector<Head> moved = heads_;
  std::size_t blocks = 0;
  for (Head& head : moved) {
    head.first = blocks;
    blocks += std::size_t(ceil_div(head.kept + reserve, std::int64_t(simd::kCacheRows)));
  }
  Buffer memory(blocks * block_bytes_, "cache", huge_pages_);
  for (int node = 0; node < placement_.nodes(); ++node) {
    const Range part = placement_.part(std::int64_t(blocks), node);
    placement_.bind(memory, std::size_t(part.begin) * block_bytes_, std::size_t(part.end) * block_bytes_, node);
  }
  for (std::size_t h = 0; blocks_ && h < heads_.size(); ++h) {
    const std::size_t used = std::size_t(ceil_div(length(int(h)), std::int64_t(simd::kCacheRows)));
    std::memcpy(memory.as<>() + moved[h].first * block_bytes_, this->blocks(int(h), 0), used * block_bytes_);
  }
  heads_ = std::move(moved);
  blocks_ = std::move(memory);
  reserve_ = reserve;
}

std::size_t CpuLayerCache::bytes() const {
  std::size_t rows = 0;
  for (int h = 0; h < heads(); ++h) rows += std::size_t(length(h));
  return rows * (block_bytes_ / simd::kCacheRows);
}

void CpuLayerCache::read_row(int head, std::int64_t row, float* key_out, float* value_out) const {
  const int at = int(row % simd::kCacheRows), lane = at % simd::kLanes;
  const std::byte* const block = blocks(head, row);
  std::vector<float> unit(std::size_t(d_), 0.0f), dims(std::size_t(lane + 1));
  for (int i = 0; i < d_; ++i) {  // products with unit vectors are a key's dims
    unit[std::size_t(i)] = 1.0f;
    kernels_->attend_keys(k_type_, unit.data(), 1, block + simd::key_panel_at(k_type_, d_, at), lane + 1, d_, 1.0f,
                          dims.data(), lane + 1);
    unit[std::size_t(i)] = 0.0f;
    key_out[i] = dims.back();
  }
  for (int i = 0; i < d_; i += simd::kValueDims)
    kernels_->decode_row(v_type_, block + simd::values_at(k_type_, v_type_, d_, at, i), simd::value_dims(d_, i),
                         value_out + i);
}

void CpuLayerCache::write_row(int head, std::int64_t row, const float* key, const float* value) const {
  const int at = int(row % simd::kCacheRows);
  std::byte* const block = blocks(head, row);
  kernels_->encode_key(k_type_, key, d_, block + simd::key_panel_at(k_type_, d_, at), at % simd::kLanes);
  for (int i = 0; i < d_; i += simd::kValueDims)
    kernels_->encode_row(v_type_, value + i, simd::value_dims(d_, i),
                         block + simd::values_at(k_type_, v_type_, d_, at, i));
}

std::unique_ptr<CpuLayerCache> store(const simd::KernelTable& kernels, ThreadTeam& team, const AttentionShape& shape,
                                     const CpuLayerState& state, const CpuSelection& keep, const CacheFormat& format,
                                     const Placement& placement, HugePages huge_pages) {
  auto cache = std::make_unique<CpuLayerCache>(kernels, keep, format, shape.d, placement, huge_pages);
  const int d = shape.d, sharing = cache->heads() / shape.heads_kv;  // stored heads per key/value head: 1 or G
  std::int64_t all = 0;
  for (const auto& rows : keep.rows) all += std::int64_t(rows.size());
  team.run([&](int thread) {
    const Range mine = split(all, team.size(), thread);  // of the rows of all heads: a thread's node holds them
    std::int64_t first = 0;                              // of this head
    for (int h = 0; h < cache->heads(); ++h) {
      const auto& rows = keep.rows[std::size_t(h)];
      const std::int64_t base = std::int64_t(h / sharing) * state.n, count = std::int64_t(rows.size());
      for (std::int64_t i = std::max<std::int64_t>(mine.begin - first, 0); i < std::min(mine.end - first, count); ++i) {
        const std::int64_t from = (base + rows[std::size_t(i)]) * d;
        cache->write_row(h, i, state.kv.k.data() + from, state.kv.v.data() + from);
      }
      first += count;
    }
  });
  return cache;
}

}  // namespace fastkv::cpu
