// Device memory, copies and errors of the CUDA runtime, for host code.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace fastkv::cuda {

/// Throws Error unless `status` is success: out_of_memory, unsupported (no device, no driver) or internal, with `what`
/// and the runtime's own words.
void check_cuda(cudaError_t status, const char* what);

/// The device that this thread uses. Throws Error unsupported unless it can run the kernels.
cudaDeviceProp require_device();

/// Bytes of device memory to be had: free, or given back to this process's own pool.
std::size_t free_memory();

/// The stream that every operation of a backend runs on, in order.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void wait() const;  ///< until all work given so far is done

 private:
  cudaStream_t stream_ = nullptr;
};

/// `bytes` of device memory in the order of a stream: given out when work before it is done, given back when work after
/// it begins. Throws Error out_of_memory with `what`, the bytes wanted and the bytes free.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(cudaStream_t stream, std::size_t bytes, const char* what);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer(std::move(other)).swap(*this);
    return *this;
  }
  void swap(DeviceBuffer& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  cudaStream_t stream_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// `size` elements of T on the device.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(cudaStream_t stream, std::size_t size, const char* what)
      : buffer_(stream, size * sizeof(T), what), size_(size) {}
  T* data() const { return static_cast<T*>(buffer_.data()); }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  DeviceBuffer buffer_;
  std::size_t size_ = 0;
};

/// Copies in the stream's order. The host side may be reused when the call returns (pageable memory is staged);
/// to_host() waits for the data.
void copy_to_device(cudaStream_t stream, void* to, const void* from, std::size_t bytes);
void copy_to_host(cudaStream_t stream, void* to, const void* from, std::size_t bytes);

template <class T>
DeviceArray<T> to_device(cudaStream_t stream, std::span<const T> from, const char* what) {
  DeviceArray<T> out(stream, from.size(), what);
  copy_to_device(stream, out.data(), from.data(), from.size_bytes());
  return out;
}
template <class T>
std::vector<T> to_host(cudaStream_t stream, const T* from, std::size_t size) {
  std::vector<T> out(size);
  copy_to_host(stream, out.data(), from, size * sizeof(T));
  return out;
}

}  // namespace fastkv::cuda
