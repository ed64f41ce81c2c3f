// Streams, memory and copies of the CUDA runtime, with its failures as the library's errors.
#include "backend/cuda/device.hpp"

#include <algorithm>
#include <cstdint>

#include "core/check.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kLeastCapability = 8;  // bfloat16 on tensor cores

ErrorCode code_of(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return ErrorCode::out_of_memory;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return ErrorCode::unsupported;
    default:
      return ErrorCode::internal;
  }
}

}  // namespace

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next check of a launch would report this failure again
  fail(code_of(status), "CUDA: ", what, ": ", cudaGetErrorString(status));
}

cudaDeviceProp require_device() {
  int count = 0, device = 0;
  check_cuda(cudaGetDeviceCount(&count), "--device cuda");
  check(count > 0, ErrorCode::unsupported, "--device cuda: expected a CUDA device, found none");
  check_cuda(cudaGetDevice(&device), "--device cuda");
  cudaDeviceProp found;
  check_cuda(cudaGetDeviceProperties(&found, device), "properties of the device");
  check(found.major >= kLeastCapability, ErrorCode::unsupported, "--device cuda: expected compute capability ",
        kLeastCapability, ".0 or above, found ", found.major, '.', found.minor, " (", found.name, ')');
  return found;
}

std::size_t free_memory() {
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "free memory");
  int device = 0;
  cudaMemPool_t pool = nullptr;
  std::uint64_t reserved = 0, used = 0;
  check_cuda(cudaGetDevice(&device), "the device");
  check_cuda(cudaDeviceGetDefaultMemPool(&pool, device), "the memory pool");
  check_cuda(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "the memory pool");
  check_cuda(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), "the memory pool");
  return free + std::size_t(reserved - std::min(used, reserved));
}

Stream::Stream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
Stream::~Stream() { cudaStreamDestroy(stream_); }
void Stream::wait() const { check_cuda(cudaStreamSynchronize(stream_), "waiting for the device"); }

DeviceBuffer::DeviceBuffer(cudaStream_t stream, std::size_t bytes, const char* what) : stream_(stream), bytes_(bytes) {
  if (bytes == 0) return;
  const cudaError_t status = cudaMallocAsync(&data_, bytes, stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail(ErrorCode::out_of_memory, what, ": ", bytes, " bytes of device memory wanted, ", free, " of ", total, " free");
  }
  check_cuda(status, what);
}
DeviceBuffer::~DeviceBuffer() {
  if (data_) cudaFreeAsync(data_, stream_);
}

void copy_to_device(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copying to the device");
}

void copy_to_host(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "copying from the device");
  check_cuda(cudaStreamSynchronize(stream), "waiting for the device");
}

}  // namespace fastkv::cuda
