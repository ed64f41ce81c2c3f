// The kept K and V rows of one layer on a GPU: per stored head a contiguous run of rows with room for decode.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/device.hpp"
#include "backend/cuda/handles.hpp"
#include "backend/cuda/kernels/attention.hpp"

namespace fastkv::cuda {

class CudaLayerCache final : public LayerCache {
 public:
  /// Room for the rows of `keep` and `format.reserve` more per stored head of width d.
  CudaLayerCache(cudaStream_t stream, const CudaSelection& keep, const CacheFormat& format, int d);

  std::int64_t length(int head) const override { return kept_[std::size_t(head)] + appended(); }
  std::size_t bytes() const override;
  void read_row(int head, std::int64_t row, float* key, float* value) const override;

  CacheView view() const;
  std::int64_t most_kept() const { return most_kept_; }
  /// Names where the rows lie: another number, another place. Never given twice.
  std::uint64_t place() const { return place_; }

 private:
  void allocate(std::int64_t reserve) override;
  std::size_t row_bytes() const;

  cudaStream_t stream_;
  CacheType k_type_, v_type_;
  int d_;
  std::vector<std::int32_t> kept_;     ///< [stored heads] rows of the prompt
  std::vector<std::int64_t> offsets_;  ///< [stored heads] first row of each
  std::int64_t most_kept_ = 0;
  std::uint64_t place_ = 0;
  DeviceBuffer keys_, values_;
  DeviceArray<std::int64_t> device_offsets_;
  DeviceArray<std::int32_t> device_kept_;
};

}  // namespace fastkv::cuda
