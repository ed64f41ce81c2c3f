// Progress on stderr: a bar on a terminal, lines elsewhere, JSON on request.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "common/log.hpp"
#include "fastkv/engine.hpp"

namespace fastkv::tools {

class ProgressReport {
 public:
  /// --progress.
  void declare(CommandLine& command);
  /// `text_on_screen`: stdout is a terminal, so nothing may be drawn while text is generated.
  void start(Log& log, bool text_on_screen);

  void update(const Progress& progress);
  /// `done` of `total` items of a longer piece of work ("rows") are finished; 0: it begins. From then on update() shows
  /// how far the item at work is, beside how many are done; without a terminal it speaks only when an item takes long.
  void items(const char* what, std::int64_t done, std::int64_t total);
  /// Takes the bar off the screen.
  void wipe();

  /// The last report, for the summary of a run that was stopped.
  const Progress& last() const { return last_; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class Mode { automatic, on, off, json } mode_ = Mode::automatic;
  /// `fraction`: none where the end is not known.
  void draw(const char* what, std::optional<double> fraction, const std::string& figures);
  void print(const Progress& progress);
  void line(const std::string& text);
  bool quiet_for_long() const;

  Log* log_ = nullptr;
  bool terminal_ = false, text_on_screen_ = false, drawn_ = false;
  Progress last_{};
  Clock::time_point last_output_{}, items_start_{}, last_line_{};
  std::string items_;  // "rows 3 of 10, ETA 12s"; empty: there are no items
  int last_tenth_ = 0, items_tenth_ = 0;
};

}  // namespace fastkv::tools
