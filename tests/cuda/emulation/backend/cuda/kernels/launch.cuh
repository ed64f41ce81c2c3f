// Emulation of launches: the kernel runs at once on the host, or when the captured graph does.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <tuple>
#include <utility>

#include "backend/cuda/device.hpp"

namespace fastkv::cuda {

inline constexpr std::size_t kMostSharedBytes = 227 << 10;  ///< of a block (sm_90)

template <class... Params, class... Args>
void launch(cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
            Args&&... args) {
  const std::uint64_t threads = std::uint64_t(block.x) * block.y * block.z;
  const bool fits = threads > 0 && threads <= 1024 && block.z <= 64 && shared_bytes <= kMostSharedBytes && grid.x > 0 &&
                    grid.x <= 0x7fffffffu && grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535;
  check_cuda(fits ? cudaSuccess : cudaErrorInvalidConfiguration, "a kernel's launch");
  emulation::enqueue(stream, [=, values = std::tuple<std::decay_t<Params>...>(std::forward<Args>(args)...)] {
    emulation::run_grid(grid, block, shared_bytes, [&] { std::apply(kernel, values); });
  });
}

/// The block's dynamic shared memory.
template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulation::current->block->shared);
}

}  // namespace fastkv::cuda
