// Big aligned buffers (huge pages where asked for) and what memory the process has, uses and may use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "fastkv/options.hpp"

namespace fastkv {

/// Anonymous memory, 64-byte aligned (page-aligned from 256 KiB up), zero-filled, move-only. Pages get their NUMA node
/// when first touched, or from Placement::bind().
class Buffer {
 public:
  Buffer() = default;
  /// Throws Error out_of_memory naming `what` and the size when the system refuses.
  Buffer(std::size_t bytes, const char* what, HugePages huge_pages = HugePages::automatic);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }

  template <class T = std::byte>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }
  bool has_own_pages() const { return mapped_ > 0; }  ///< 256 KiB and more: no other data on them
  explicit operator bool() const { return data_ != nullptr; }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_, other.mapped_);
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t mapped_ = 0;  ///< bytes of the mapping, 0: from the heap
};

/// A typed view of a Buffer: the usual way to hold a matrix.
template <class T>
class Array {
 public:
  Array() = default;
  /// Throws as Buffer does, also when count · sizeof(T) does not fit std::size_t.
  Array(std::size_t count, const char* what, HugePages huge_pages = HugePages::automatic)
      : buffer_(count > SIZE_MAX / sizeof(T) ? SIZE_MAX : count * sizeof(T), what, huge_pages), size_(count) {}
  T* data() const { return buffer_.as<T>(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) const { return data()[i]; }
  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  std::size_t size_ = 0;
};

/// The kernel gives transparent huge pages to buffers that ask. `root` is put before /sys, for tests.
bool huge_pages_offered(const std::string& root = "");

std::size_t peak_rss_bytes();  ///< VmHWM of this process
/// Bytes this process may still take: min(MemAvailable, cgroup v1/v2 limit − usage, RLIMIT_AS headroom).
std::size_t available_memory_bytes();

}  // namespace fastkv
