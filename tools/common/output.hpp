// Generated text on its way to stdout: whole UTF-8 characters, stop strings held back, write errors noticed.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fastkv::tools {

/// Writes all of `text` to stdout. Throws Error io when that fails (a full disk), cancelled when a signal comes while
/// the write is blocked.
void write_stdout(std::string_view text);

/// Throws Error io if a file that is written at the end could not be: better before the work begins. Empty: no file.
void check_writable(const std::string& path);

/// Passes on bytes as valid UTF-8: characters that are still incomplete wait, malformed bytes become U+FFFD.
class Utf8Stream {
 public:
  /// The whole characters that `bytes` completes.
  std::string push(std::string_view bytes);

 private:
  std::string pending_;
};

/// Passes text on until one of the stop strings appears; the stop string itself and what follows is dropped. Text that
/// may be the beginning of a stop string waits.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  std::string push(std::string_view text);
  /// What is still held back at the end of generation.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace fastkv::tools
