// Maps or reads files and releases ranges with madvise.
#include "runtime/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/check.hpp"

namespace fastkv {
namespace {

/// Closes the descriptor once the mapping, which keeps the file open by itself, is made.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

MappedFile::MappedFile(const std::string& path, FileAccess access) : path_(path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  check(file.fd >= 0, ErrorCode::io, path, ": cannot open: ", std::strerror(errno));
  struct stat status {};
  check(::fstat(file.fd, &status) == 0, ErrorCode::io, path, ": cannot stat: ", std::strerror(errno));
  check(S_ISREG(status.st_mode), ErrorCode::io, path, ": expected a regular file, found ",
        S_ISDIR(status.st_mode) ? "a directory" : "something else");
  size_ = std::size_t(status.st_size);
  if (size_ == 0) return;  // mmap refuses a length of zero
  void* address = access == FileAccess::map
                      ? ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.fd, 0)
                      : ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(address != MAP_FAILED, ErrorCode::io, path, ": cannot map ", size_, " bytes: ", std::strerror(errno));
  data_ = static_cast<const std::byte*>(address);
  if (access == FileAccess::read) {
    try {
      read_all(file.fd);
    } catch (...) {
      unmap();
      throw;
    }
  }
}

void MappedFile::read_all(int fd) {
  auto* to = const_cast<std::byte*>(data_);
  for (std::size_t done = 0; done < size_;) {
    const ssize_t n = ::read(fd, to + done, size_ - done);
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, ErrorCode::io, path_, ": cannot read: ", std::strerror(errno));
    check(n > 0, ErrorCode::io, path_, ": expected ", size_, " bytes, found ", done);
    done += std::size_t(n);
  }
}

MappedFile::~MappedFile() { unmap(); }

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

void MappedFile::unmap() noexcept {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::advise_dontneed(std::span<const std::byte> range) const noexcept {
  // Neighbours share the first and last page: only whole pages go.
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(range.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(range.data()) + range.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace fastkv
