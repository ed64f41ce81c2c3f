// Emulation of launches: the kernel runs at once on the host, or when the captured graph does.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "backend/cuda/device.hpp"

namespace fastkv::cuda {

inline constexpr std::size_t kMostSharedBytes = 227 << 10;  ///< of a block (sm_90)

namespace emulated {

/// Kernels see the device's memory alone: no argument may be, or hold, an address of the host's.
template <class T>
void check_argument(T argument) {
  if constexpr (std::is_trivially_copyable_v<T> && sizeof(T) >= 8 && alignof(T) >= 8) {
    __builtin_clear_padding(&argument);  // beside a small number, what is left there may read as an address
    std::uint64_t words[sizeof(T) / 8];
    std::memcpy(words, &argument, sizeof words);
    emulation::check_argument(words, sizeof(T) / 8);
  }
}

/// Runs `kernel` as the thread that is current.
template <class... Params>
void run(bool early, void (*kernel)(Params...), const std::tuple<std::decay_t<Params>...>& values) {
  emulation::current->awaited = false;
  std::apply(kernel, values);
  if (early && !emulation::current->awaited)
    throw emulation::Fault("a kernel that may begin early does not wait for the one before it");
}

template <class... Params, class... Args>
void give(bool early, cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
          Args&&... args) {
  const std::uint64_t threads = std::uint64_t(block.x) * block.y * block.z;
  const bool fits = threads > 0 && threads <= 1024 && block.z <= 64 && shared_bytes <= kMostSharedBytes && grid.x > 0 &&
                    grid.x <= 0x7fffffffu && grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535;
  check_cuda(fits ? cudaGetLastError() : cudaErrorInvalidConfiguration, "a kernel's launch");
  std::tuple<std::decay_t<Params>...> values(std::forward<Args>(args)...);
  std::apply([](const auto&... value) { (check_argument(value), ...); }, values);
  emulation::enqueue(stream,
                     [=] { emulation::run_grid(grid, block, shared_bytes, [&] { run(early, kernel, values); }); });
}

}  // namespace emulated

template <class... Params, class... Args>
void launch(cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
            Args&&... args) {
  emulated::give(false, stream, grid, block, shared_bytes, kernel, std::forward<Args>(args)...);
}
template <class... Params, class... Args>
void launch_early(cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
                  Args&&... args) {
  emulated::give(true, stream, grid, block, shared_bytes, kernel, std::forward<Args>(args)...);
}
inline void await_predecessor() { emulation::current->awaited = true; }

/// The block's dynamic shared memory.
template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulation::current->block->shared);
}

}  // namespace fastkv::cuda
