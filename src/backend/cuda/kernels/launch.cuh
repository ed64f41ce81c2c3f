// Launches of kernels with their checks, and the block's dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <nv/target>
#include <utility>

#include "backend/cuda/device.hpp"

namespace fastkv::cuda {

/// Whether launch_early() lets kernels overlap at all.
inline constexpr bool kOverlap = true;

template <class... Params>
void allow_shared(void (*kernel)(Params...), std::size_t bytes) {
  // What a kernel may use without asking; a kernel asks before each launch, which costs less than a microsecond.
  if (bytes > (48 << 10))
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
               "a kernel's shared memory");
}

/// kernel(args…) on `grid` × `block` threads with `shared_bytes` of dynamic shared memory.
template <class... Params, class... Args>
void launch(cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
            Args&&... args) {
  allow_shared(kernel, shared_bytes);
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Params>(std::forward<Args>(args))...);
  check_cuda(cudaGetLastError(), "a kernel's launch");
}

/// The same of a kernel whose every thread calls await_predecessor(). Its blocks may begin while the last of the kernel
/// before it still run (programmatic dependent launch): what they read before that call nobody writes any more.
template <class... Params, class... Args>
void launch_early(cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Params...),
                  Args&&... args) {
  allow_shared(kernel, shared_bytes);
  cudaFuncAttributes code;
  check_cuda(cudaFuncGetAttributes(&code, kernel), "a kernel's code");
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  // of older code, also where a driver has translated it for a newer device, await_predecessor() does nothing
  config.numAttrs = kOverlap && code.ptxVersion >= 90 ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...),
             "a kernel's launch");
}

/// Waits until the kernel before this one has ended and its writes are seen, and with it all before that one, as every
/// kernel waits; then lets the next begin. Memory that an earlier kernel wrote, or read before it is written here, is
/// not to be touched before, nor to be read through `const __restrict__` after it: that cache is not told.
__device__ __forceinline__ void await_predecessor() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (cudaGridDependencySynchronize(); cudaTriggerProgrammaticLaunchCompletion();))
}

/// The block's dynamic shared memory.
template <class T>
__device__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char fastkv_shared_bytes[];
  return reinterpret_cast<T*>(fastkv_shared_bytes);
}

}  // namespace fastkv::cuda
