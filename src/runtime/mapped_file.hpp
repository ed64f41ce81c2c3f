// A whole file in memory, read-only: mapped, or read into anonymous pages.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace fastkv {

enum class FileAccess {
  map,   ///< pages come from the file on first touch and are not counted as private memory
  read,  ///< the whole file is read at once into private memory (LoadMode::none)
};

/// Owns one read-only mapping of a file's bytes.
class MappedFile {
 public:
  /// Throws Error io: `path` cannot be opened, is not a regular file, or cannot be mapped or read. An empty file has no
  /// bytes.
  explicit MappedFile(const std::string& path, FileAccess access = FileAccess::map);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  /// Gives the pages that lie entirely inside `range` back to the system. Touching them again reads the file again if it
  /// is mapped, and finds zeros if it was read. `range` must lie inside bytes(). A hint: failures are ignored.
  void advise_dontneed(std::span<const std::byte> range) const noexcept;

 private:
  void read_all(int fd);
  void unmap() noexcept;

  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fastkv
