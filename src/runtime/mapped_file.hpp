// A whole file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace fastkv {

/// Owns one read-only, shared mapping. Pages come from the file on first touch and are not counted as private memory.
class MappedFile {
 public:
  /// Throws Error io: `path` cannot be opened, is not a regular file, or cannot be mapped. An empty file maps to no
  /// bytes.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  /// Gives the pages that lie entirely inside `range` back to the system; touching them again reads the file again.
  /// `range` must lie inside bytes(). A hint: failures are ignored.
  void advise_dontneed(std::span<const std::byte> range) const noexcept;

 private:
  void unmap() noexcept;

  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fastkv
