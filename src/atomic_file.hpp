// Files that are either complete or not there.
#pragma once

#include <cstddef>
#include <string>

namespace fastkv {

/// Writes beside the target under a temporary name; commit() renames. Without commit() the temporary file is removed.
/// A target that exists and is no regular file (a pipe, /dev/stdout) is written in place. Every failure throws Error io
/// with the path and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail_io(const char* what) const;

  std::string path_;       // as the caller named it, for messages
  std::string target_;     // links resolved
  std::string temporary_;  // empty: written in place
  int fd_ = -1;
};

}  // namespace fastkv
