// Lines on stderr and in the log file.
#include "common/log.hpp"

#include <cerrno>
#include <cstring>

#include "fastkv/error.hpp"

namespace fastkv::tools {

void Log::declare(CommandLine& command) {
  command.option(
      "-lv,--verbosity,~--log-verbosity", "N", verbosity_,
      "what goes to stderr: 0 results asked for, 1 errors, 2 warnings, 3 also the report of the run (default), "
      "4 everything",
      Limits<int>{0, 5, "must be 0 to 5"});
  command.flag("-v,--verbose", "-lv 4", [this](bool on) { verbosity_ = on ? 4 : 3; });
  command.option("--log-file", "FILE", path_, "write the same lines to FILE");
}

void Log::open() {
  if (path_.empty()) return;
  file_ = std::fopen(path_.c_str(), "w");
  if (!file_) throw Error(ErrorCode::io, "cannot write " + path_ + ": " + std::strerror(errno));
  std::setvbuf(file_, nullptr, _IOLBF, 0);
}

Log::~Log() {
  if (file_) std::fclose(file_);
}

void Log::line(Level level, const std::string& text) {
  if (!shows(level)) return;
  if (before_line) before_line();
  std::fprintf(stderr, "%s\n", text.c_str());
  if (file_) std::fprintf(file_, "%s\n", text.c_str());
}

}  // namespace fastkv::tools
