// Storing, growing and reading a layer's rows on the device.
#include "backend/cuda/layer_cache.hpp"

#include <algorithm>
#include <atomic>

#include "backend/cuda/kernels/cache.hpp"

namespace fastkv::cuda {

CudaLayerCache::CudaLayerCache(cudaStream_t stream, const CudaSelection& keep, const CacheFormat& format, int d)
    : stream_(stream),
      k_type_(format.k),
      v_type_(format.v),
      d_(d),
      kept_(keep.counts),
      most_kept_(*std::max_element(kept_.begin(), kept_.end())) {
  device_kept_ = to_device<std::int32_t>(stream_, kept_, "cache lengths");
  allocate(format.reserve);
}

void CudaLayerCache::allocate(std::int64_t reserve) {
  static std::atomic<std::uint64_t> places{0};
  std::vector<std::int64_t> offsets;
  std::int64_t rows = 0;
  for (const std::int32_t kept : kept_) {
    offsets.push_back(rows);
    rows += kept + reserve;
  }
  const std::size_t k_row = std::size_t(cache_row_bytes(k_type_, d_)),
                    v_row = std::size_t(cache_row_bytes(v_type_, d_));
  DeviceBuffer keys(stream_, std::size_t(rows) * k_row, "key cache");
  DeviceBuffer values(stream_, std::size_t(rows) * v_row, "value cache");
  const auto move = [&](const DeviceBuffer& from, const DeviceBuffer& to, std::size_t row, std::size_t h) {
    check_cuda(cudaMemcpyAsync(static_cast<std::byte*>(to.data()) + std::size_t(offsets[h]) * row,
                               static_cast<const std::byte*>(from.data()) + std::size_t(offsets_[h]) * row,
                               std::size_t(length(int(h))) * row, cudaMemcpyDeviceToDevice, stream_),
               "moving the cache");
  };
  for (std::size_t h = 0; keys_.data() && h < kept_.size(); ++h) {
    move(keys_, keys, k_row, h);
    move(values_, values, v_row, h);
  }
  keys_ = std::move(keys);
  values_ = std::move(values);
  device_offsets_ = to_device<std::int64_t>(stream_, offsets, "cache offsets");
  offsets_ = std::move(offsets);
  reserve_ = reserve;
  place_ = ++places;
}

std::size_t CudaLayerCache::row_bytes() const {
  return std::size_t(cache_row_bytes(k_type_, d_) + cache_row_bytes(v_type_, d_));
}

std::size_t CudaLayerCache::bytes() const {
  std::size_t rows = 0;
  for (std::size_t h = 0; h < kept_.size(); ++h) rows += std::size_t(length(int(h)));
  return rows * row_bytes();
}

CacheView CudaLayerCache::view() const {
  return {static_cast<const std::byte*>(keys_.data()),
          static_cast<const std::byte*>(values_.data()),
          k_type_,
          v_type_,
          cache_row_bytes(k_type_, d_),
          cache_row_bytes(v_type_, d_),
          device_offsets_.data(),
          device_kept_.data(),
          int(kept_.size()),
          most_kept_ + reserve_};
}

void CudaLayerCache::read_row(int head, std::int64_t row, float* key, float* value) const {
  const CacheView cache = view();
  const DeviceArray<float> floats(stream_, std::size_t(d_), "a cache row");
  const std::int64_t at = offsets_[std::size_t(head)] + row;
  read_rows(stream_, k_type_, cache.k + at * cache.k_stride, 1, d_, floats.data());
  copy_to_host(stream_, key, floats.data(), floats.bytes());
  read_rows(stream_, v_type_, cache.v + at * cache.v_stride, 1, d_, floats.data());
  copy_to_host(stream_, value, floats.data(), floats.bytes());
}

}  // namespace fastkv::cuda
