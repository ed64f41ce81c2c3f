// Files that are either complete or not there.
#include "atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "core/check.hpp"

namespace fastkv {

AtomicFile::AtomicFile(const std::string& path) : path_(path), target_(path) {
  struct stat status {};
  const bool exists = stat(path.c_str(), &status) == 0;
  if (exists && !S_ISREG(status.st_mode)) {
    fd_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail_io("open");
    return;
  }
  if (exists) {  // rename() would replace a link instead of what it points to
    const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
    if (real) target_ = real.get();
    if (access(path.c_str(), W_OK) != 0) fail_io("write");  // a read-only file is meant to stay
  }
  // two runs may write beside each other; O_EXCL tells them apart
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = concat(target_, ".", getpid(), "-", attempt, ".tmp");
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && (errno != EEXIST || attempt == 100)) {
      temporary_.clear();
      fail_io("write");
    }
  }
  if (exists) (void)!fchmod(fd_, status.st_mode & 07777);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* rest = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(fd_, rest, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_io("write");
    rest += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  // some file systems report a full disk only here
  if (!temporary_.empty() && fsync(fd_) != 0) fail_io("write");
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) fail_io("write");
  if (temporary_.empty()) return;
  if (rename(temporary_.c_str(), target_.c_str()) != 0) fail_io("write");
  temporary_.clear();
}

void AtomicFile::fail_io(const char* what) const {
  const int reason = errno;
  fail(ErrorCode::io, "cannot ", what, " ", path_, ": ", std::strerror(reason));
}

}  // namespace fastkv
