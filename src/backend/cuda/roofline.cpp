// What one GPU can do at most, measured now.
#include "backend/cuda/roofline.hpp"

#include <algorithm>
#include <cmath>

#include "backend/cuda/kernels/stream.hpp"
#include "core/check.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kBursts = 4;
constexpr std::size_t kLeastRead = std::size_t(1) << 20, kPassBytes = std::size_t(256) << 20;
// of a multiprocessor while memory is read: which is best differs between devices
constexpr int kReadBlocks[] = {1, 2, 4};

}  // namespace

Roofline::Roofline(const RooflineSizes& sizes)
    : sizes_(sizes), device_(require_device()), gemm_(stream_), library_(stream_, Algorithms::first_choice) {}

std::string Roofline::isa() const { return concat("sm_", device_.major, device_.minor); }

double Roofline::timed(const std::function<void()>& work) {
  events_.reset();
  const std::size_t begin = events_.record(stream_);
  work();
  const std::size_t end = events_.record(stream_);
  check_cuda(cudaEventSynchronize(events_[end]), "waiting for the device");
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, events_[begin], events_[end]), "time of a kernel");
  return std::max(double(ms) * 1e-3, 1e-9);
}

double Roofline::seconds(const DeviceKernel& kernel, std::int64_t runs) {
  return timed([&] {
    for (std::int64_t i = 0; i < runs; ++i) kernel.run();
  });
}

std::int64_t Roofline::edge() {
  const std::size_t free = free_memory();
  std::int64_t edge = sizes_.edge;
  while (edge > 256 && 3 * std::size_t(edge) * std::size_t(edge) * sizeof(__nv_bfloat16) > free / 2) edge /= 2;
  return edge;
}

std::string Roofline::product_shape() {
  const std::int64_t n = edge();
  return concat(n, " x ", n, " x ", n);
}

double Roofline::operations() {
  const std::int64_t n = edge();
  const auto matrix = [&] { return DeviceArray<__nv_bfloat16>(stream_, std::size_t(n * n), "matrix of a product"); };
  const auto x = matrix(), w = matrix(), y = matrix();
  fill_random(stream_, x.data(), x.size());
  fill_random(stream_, w.data(), w.size());
  gemm_.expect_rows(n);
  const auto products = [&](Gemm& gemm, std::int64_t count) {
    return timed([&] {
      for (std::int64_t i = 0; i < count; ++i)
        gemm.multiply(x.data(), n, w.data(), static_cast<const __nv_bfloat16*>(nullptr), n, n, y.data());
    });
  };
  double best = 0;
  for (Gemm* gemm : {&gemm_, &library_}) {
    products(*gemm, 1);  // chooses the algorithm
    const std::int64_t count = std::max<std::int64_t>(1, std::llround(sizes_.burst_seconds / products(*gemm, 1)));
    for (int burst = 0; burst < kBursts; ++burst)
      best = std::max(best, 2.0 * std::pow(double(n), 3) * double(count) / products(*gemm, count));
  }
  return best;
}

double Roofline::read_bandwidth(std::size_t bytes) {
  const std::size_t most = std::max(free_memory() / 2, kLeastRead);
  const std::size_t size = std::clamp(bytes, kLeastRead, most) / 16 * 16;
  const DeviceBuffer buffer(stream_, size, "memory to be read");
  check_cuda(cudaMemsetAsync(buffer.data(), 1, size, stream_), "memory to be read");
  // a small buffer is read several times, so that the launch takes no part of the time
  const int passes = int(std::max<std::size_t>(1, std::min(sizes_.stream_bytes, kPassBytes) / size));
  double best = 0;
  for (int burst = 0; burst < kBursts; ++burst) {
    for (const int of_each : kReadBlocks) {
      const int blocks = of_each * device_.multiProcessorCount;
      const DeviceArray<std::uint32_t> sums(stream_, read_sums(blocks), "sums");
      const double time = timed([&] { read_all(stream_, buffer.data(), size, passes, blocks, sums.data()); });
      best = std::max(best, double(size) * passes / time);
    }
  }
  return best;
}

std::vector<DeviceKernel> Roofline::kernels(const DecoderShape& shape) {
  return roofline_kernels(stream_, gemm_, sizes_, shape, std::size_t(device_.l2CacheSize));
}

}  // namespace fastkv::cuda
