// From exceptions to one line on stderr and an exit status.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <new>

#include "common/cli.hpp"
#include "common/signals.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

namespace {

/// A closed standard stream must not become the descriptor of a model or trace file.
void occupy_standard_streams() {
  for (int fd = 0; fd < 3; ++fd) {
    // read-only on purpose: output to a stream that was closed stays an error
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDONLY) != fd) std::terminate();
  }
}

}  // namespace

int run_tool(const char* program, const std::function<int()>& body) {
  occupy_standard_streams();
  try {
    return body();
  } catch (const UsageError& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 2;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) return stop_exit_status();
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return error.code() == ErrorCode::invalid_option ? 2 : 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: out of memory\n", program);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
  }
  return 1;
}

}  // namespace fastkv::tools
