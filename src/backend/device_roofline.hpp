// What a device beside the CPU can do at most, and the kernels of its backend ready to be timed: for fastkv-bench.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace fastkv {

/// What the shapes of a decoder's kernels follow from. Default: Llama 3.1 8B.
struct DecoderShape {
  int n_embd = 4096, n_ff = 14336, n_head = 32, n_head_kv = 8, head_dim = 128, n_vocab = 128256;
};

/// How much is measured.
struct RooflineSizes {
  std::int64_t edge = 8192;                           ///< of the square matrices of the largest product
  std::size_t stream_bytes = std::size_t(1) << 30;    ///< that kernels bound by memory read before they read any twice
  std::vector<std::int64_t> rows = {512, 4096};       ///< of the prompt's products and of kernels on rows
  std::vector<std::int64_t> keys = {8192, 32768};     ///< of a prompt's attention
  std::vector<std::int64_t> cached = {8192, 131072};  ///< rows of a cache that a generated token attends to
  double burst_seconds = 0.02;                        ///< of a measurement, about
};

/// A kernel of a backend with buffers of its own; they live as long as it does.
struct DeviceKernel {
  enum class Bound {
    products,  ///< DeviceRoofline::operations()
    memory,    ///< DeviceRoofline::read_bandwidth()
    cache      ///< its data fit into the device's cache: nothing that is measured bounds it
  };
  std::string name, shape;
  Bound bound;
  double work;  ///< of a call: operations, or bytes read and written
  int calls;    ///< that `run` gives to the device, one after another, each on other data
  std::function<void()> run;
};

class DeviceRoofline {
 public:
  virtual ~DeviceRoofline() = default;

  /// The device's name, its architecture ("sm_90") and the library of its products ("cublasLt 13.0.2").
  virtual std::string device() const = 0;
  virtual std::string isa() const = 0;
  virtual std::string library() const = 0;

  /// The product that operations() is measured on: "8192 x 8192 x 8192", smaller where memory is short.
  virtual std::string product_shape() = 0;
  /// Operations a second of a large bfloat16 product by the library, as the engine calls it or by the algorithm that it
  /// chooses itself: the best of several bursts of both.
  virtual double operations() = 0;
  /// Bytes a second that a kernel reads which does nothing else, from a buffer of `bytes` (at least 1 MiB, at most half
  /// of what is free), the best of several passes.
  virtual double read_bandwidth(std::size_t bytes) = 0;

  /// The backend's kernels on a decoder of this shape, each as it is called for a prompt or a generated token.
  virtual std::vector<DeviceKernel> kernels(const DecoderShape& shape) = 0;
  /// Seconds that the device takes for `runs` of a kernel.
  virtual double seconds(const DeviceKernel& kernel, std::int64_t runs) = 0;
};

/// Of EngineOptions::device; null for the CPU, whose limits fastkv-bench knows itself. Throws Error: unsupported (no
/// such device on this machine), invalid_option (not in this build).
std::unique_ptr<DeviceRoofline> make_device_roofline(const std::string& device, const RooflineSizes& sizes);

}  // namespace fastkv
