// Storing, growing and reading the cache of a layer.
#include "backend/cpu/layer_cache.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {

namespace {

// Where values begin in their memory: with whole pages of keys a panel, both would come to new pages at the same time,
// where prefetchers start anew. Float16 rows of 128 came at 87 % of the read loop so, half a page apart at 94 %.
std::size_t first_value(std::size_t panel_bytes) {
  constexpr std::size_t kPage = 4096;
  return panel_bytes % kPage == 0 ? kPage / 2 : 0;
}

}  // namespace

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
      k_row_bytes_(simd::row_bytes(k_type_, d)),
      v_stride_(simd::row_bytes(v_type_, d)),
      values_at_(first_value(simd::kLanes * k_row_bytes_)),
      d_(d),
      placement_(placement),
      huge_pages_(huge_pages) {
  for (const auto& rows : keep.rows) heads_.push_back({0, std::int64_t(rows.size())});
  allocate(format.reserve);
}

void CpuLayerCache::allocate(std::int64_t reserve) {
  std::vector<Head> moved = heads_;
  std::size_t rows = 0;
  for (Head& head : moved) {
    head.offset = rows;
    rows += std::size_t(round_up(head.kept + reserve, simd::kLanes));
  }
  Buffer keys(rows * k_row_bytes_, "key cache", huge_pages_),
      values(values_at_ + rows * v_stride_, "value cache", huge_pages_);
  for (int node = 0; node < placement_.nodes(); ++node) {
    const Range part = placement_.part(std::int64_t(rows), node);
    placement_.bind(keys, std::size_t(part.begin) * k_row_bytes_, std::size_t(part.end) * k_row_bytes_, node);
    placement_.bind(values, values_at_ + std::size_t(part.begin) * v_stride_,
                    values_at_ + std::size_t(part.end) * v_stride_, node);
  }
  for (std::size_t h = 0; keys_ && h < heads_.size(); ++h) {
    const std::size_t used = std::size_t(length(int(h)));
    const std::size_t panels = round_up(used, std::size_t(simd::kLanes)) * k_row_bytes_;
    std::memcpy(keys.as<>() + moved[h].offset * k_row_bytes_, this->keys(int(h), 0), panels);
    std::memcpy(values.as<>() + values_at_ + moved[h].offset * v_stride_, value(int(h), 0), used * v_stride_);
  }
  heads_ = std::move(moved);
  keys_ = std::move(keys);
  values_ = std::move(values);
  reserve_ = reserve;
}

std::size_t CpuLayerCache::bytes() const {
  std::size_t rows = 0;
  for (int h = 0; h < heads(); ++h) rows += std::size_t(length(h));
  return rows * (k_row_bytes_ + v_stride_);
}

void CpuLayerCache::read_row(int head, std::int64_t row, float* key_out, float* value_out) const {
  const std::int64_t lane = row % simd::kLanes;
  std::vector<float> unit(std::size_t(d_), 0.0f), dims(std::size_t(lane + 1));
  for (int i = 0; i < d_; ++i) {  // products with unit vectors are a key's dims
    unit[std::size_t(i)] = 1.0f;
    kernels_->attend_keys(k_type_, unit.data(), 1, keys(head, row - lane), lane + 1, d_, 1.0f, dims.data(), lane + 1);
    unit[std::size_t(i)] = 0.0f;
    key_out[i] = dims.back();
  }
  kernels_->decode_row(v_type_, value(head, row), d_, value_out);
}

void CpuLayerCache::write_row(int head, std::int64_t row, const float* key, const float* value) const {
  const std::int64_t lane = row % simd::kLanes;
  kernels_->encode_key(k_type_, key, d_, keys(head, row - lane), int(lane));
  kernels_->encode_row(v_type_, value, d_, this->value(head, row));
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
