// The limits of one GPU and the backend's kernels on it, timed by the device's own clock.
#pragma once

#include <memory>

#include "backend/cuda/device.hpp"
#include "backend/cuda/gemm.hpp"
#include "backend/cuda/stage_timer.hpp"
#include "backend/device_roofline.hpp"

namespace fastkv::cuda {

class Roofline final : public DeviceRoofline {
 public:
  /// Throws Error unsupported where there is no device that runs the kernels.
  explicit Roofline(const RooflineSizes& sizes);

  std::string device() const override { return device_.name; }
  std::string isa() const override;
  std::string library() const override { return Gemm::version(); }
  std::string product_shape() override;
  double operations() override;
  double read_bandwidth(std::size_t bytes) override;
  std::vector<DeviceKernel> kernels(const DecoderShape& shape) override;
  double seconds(const DeviceKernel& kernel, std::int64_t runs) override;

 private:
  std::int64_t edge();
  /// Seconds on the device of what `work` gives to the stream.
  double timed(const std::function<void()>& work);

  RooflineSizes sizes_;
  cudaDeviceProp device_;  ///< proof that there is one: before the stream
  Stream stream_;
  Gemm gemm_, library_;  ///< the engine's way to the library, and the library as it likes
  EventPool events_;
};

/// The backend's kernels as Roofline::kernels() gives them; they run on `stream` and with `gemm`, which outlive them.
std::vector<DeviceKernel> roofline_kernels(cudaStream_t stream, Gemm& gemm, const RooflineSizes& sizes,
                                           const DecoderShape& shape, std::size_t cache_bytes);

}  // namespace fastkv::cuda
