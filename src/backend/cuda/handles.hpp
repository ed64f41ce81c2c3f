// What the handles of backend.hpp hold on a GPU: device arrays; of lengths and counts the host knows its own.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/device.hpp"
#include "backend/cuda/kernels/attention.hpp"

namespace fastkv::cuda {

struct CudaHidden final : Hidden {
  std::int64_t n() const override { return std::int64_t(original.size()); }
  std::vector<std::int32_t> positions() const override { return to_host(stream, original.data(), original.size()); }

  cudaStream_t stream = nullptr;
  DeviceArray<float> x;                ///< [n, D]
  DeviceArray<std::int32_t> original;  ///< [n] each row's position
  DeviceArray<float2> rope;            ///< [n][d/2] {cos, sin} of each row's position
};

struct CudaLayerState final : LayerState {
  DeviceArray<f16> k, v;     ///< [K][n][d], k rotated; v empty if only keys were asked for
  DeviceArray<f16> score_q;  ///< [score_rows][H][d] rotated queries of the last rows, for scores and finish_layer
  std::int64_t score_rows = 0;
};

struct CudaScores final : Scores {
  DeviceArray<float> s;  ///< [heads, n]
};

struct CudaSelection final : Selection {
  std::vector<std::int64_t> offsets;         ///< [heads] of each head's rows in `rows`
  std::vector<std::int32_t> counts;          ///< [heads]
  std::int64_t last = 0;                     ///< each head's rows end in the layer's last so many
  DeviceArray<std::int32_t> rows;            ///< one head after another, each ascending
  DeviceArray<std::int64_t> device_offsets;  ///< [heads]
  DeviceArray<std::int32_t> device_counts;   ///< [heads]
};

}  // namespace fastkv::cuda
