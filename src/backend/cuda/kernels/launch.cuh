// Launches of kernels with their checks, and the block's dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "backend/cuda/device.hpp"

namespace fastkv::cuda {

/// kernel(args…) on `grid` × `block` threads with `shared_bytes` of dynamic shared memory.
template <class... Params, class... Args>
void launch(cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
            Args&&... args) {
  // What a kernel may use without asking; a kernel asks before each launch, which costs less than a microsecond.
  if (shared_bytes > (48 << 10)) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
               "a kernel's shared memory");
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Params>(std::forward<Args>(args))...);
  check_cuda(cudaGetLastError(), "a kernel's launch");
}

/// The block's dynamic shared memory.
template <class T>
__device__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char fastkv_shared_bytes[];
  return reinterpret_cast<T*>(fastkv_shared_bytes);
}

}  // namespace fastkv::cuda
