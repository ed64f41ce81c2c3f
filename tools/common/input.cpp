// Reading files of any kind, pipes too.
#include "common/input.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "fastkv/error.hpp"

namespace fastkv::tools {

std::string read_document(const std::string& path) {
  const bool standard = path == "-";
  const std::string name = standard ? "stdin" : path;
  const int fd = standard ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error(ErrorCode::io, "cannot open " + name + ": " + std::strerror(errno));
  std::string text;
  std::vector<char> buffer(1 << 20);
  ssize_t n;
  while ((n = read(fd, buffer.data(), buffer.size())) != 0) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(ErrorCode::io, "cannot read " + name + ": " + std::strerror(errno));
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  if (!standard) close(fd);
  return text;
}

}  // namespace fastkv::tools
