// What a tool says on stderr, and in the file of --log-file.
#pragma once

#include <cstdio>
#include <string>

#include "common/cli.hpp"

namespace fastkv::tools {

/// llama.cpp's numbers of -lv.
enum class Level { output = 0, error = 1, warning = 2, info = 3, trace = 4 };

class Log {
 public:
  /// -lv, -v, --log-file.
  void declare(CommandLine& command);
  /// Opens the file of --log-file. Throws Error io.
  void open();
  ~Log();

  /// One line (without its line feed), if the level is at or below -lv. A progress bar that is on the screen is wiped.
  void line(Level level, const std::string& text);
  void info(const std::string& text) { line(Level::info, text); }
  void warning(const std::string& text) { line(Level::warning, "warning: " + text); }

  bool shows(Level level) const { return static_cast<int>(level) <= verbosity_; }

  /// What wipes a bar that is on the screen; set by Progress.
  std::function<void()> before_line;

 private:
  int verbosity_ = 3;
  std::string path_;
  std::FILE* file_ = nullptr;
};

}  // namespace fastkv::tools
