// The progress bar, the progress lines, and JSON lines.
#include "common/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "common/format.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

namespace {

constexpr double kQuietMs = 1000;                      // stages shorter than this say nothing
constexpr auto kLineEvery = std::chrono::seconds(30);  // without a terminal: a line at least this often
constexpr auto kRedraw = std::chrono::milliseconds(100);

const char* verb(Progress::Stage stage) {
  switch (stage) {
    case Progress::Stage::load:
      return "loading";
    case Progress::Stage::prefill:
      return "prompt";
    case Progress::Stage::decode:
      return "generating";
  }
  return "";
}

/// "1234/5000 tokens, 345.6 tokens/s, ETA 12s"; what is not known is left out. Prefill goes layer by layer, so its
/// tokens/s is the share of the work done times the prompt's length.
std::string figures(const Progress& progress) {
  const double seconds = progress.time_ms / 1000, total = static_cast<double>(progress.total);
  std::string text;
  if (progress.stage == Progress::Stage::load) {
    text = format_bytes(static_cast<std::size_t>(progress.processed)) + " of " +
           format_bytes(static_cast<std::size_t>(progress.total));
  } else if (progress.stage == Progress::Stage::prefill) {
    text = format("%lld tokens, layer %d", static_cast<long long>(progress.total), progress.layer);
    if (seconds > 0) text += format(", %.1f tokens/s", progress.fraction * total / seconds);
  } else {
    text = format("%lld tokens", static_cast<long long>(progress.processed));
    if (seconds > 0) text += format(", %.1f tokens/s", static_cast<double>(progress.processed) / seconds);
  }
  const bool endless = progress.total <= 0;
  if (!endless && progress.fraction > 0 && progress.fraction < 1) {
    text += ", ETA " + format_duration(seconds * (1 - progress.fraction) / progress.fraction);
  }
  return text;
}

}  // namespace

void ProgressReport::declare(CommandLine& command) {
  command.choice<Mode, Mode>(
      "--progress", mode_, {{"auto", Mode::automatic}, {"on", Mode::on}, {"off", Mode::off}, {"json", Mode::json}},
      "on stderr: a bar on a terminal, elsewhere a line per 10 % or 30 s (auto, after one second; "
      "on, from the start), or JSON lines");
}

void ProgressReport::start(Log& log, bool text_on_screen) {
  log_ = &log;
  terminal_ = isatty(STDERR_FILENO);
  text_on_screen_ = text_on_screen;
  log.before_line = [this] { wipe(); };
}

void ProgressReport::update(const Progress& progress) {
  const bool new_stage = progress.stage != last_.stage || progress.time_ms < last_.time_ms;
  last_ = progress;
  if (new_stage) {
    last_tenth_ = 0;
    if (items_.empty()) {
      last_line_ = Clock::now();
      wipe();
    }
  }
  if (mode_ == Mode::off || !log_) return;
  if (mode_ == Mode::json) {
    // one line of the stream at a time, whatever -lv says: the caller asked for them
    std::fprintf(stderr, "%s\n", progress_json(progress).c_str());
    return;
  }
  if (!log_->shows(Level::info) || (mode_ == Mode::automatic && progress.time_ms < kQuietMs)) return;
  if (!terminal_) {
    print(progress);
  } else if (progress.stage != Progress::Stage::decode || !text_on_screen_) {
    draw(verb(progress.stage), progress.total > 0 ? std::optional(progress.fraction) : std::nullopt, figures(progress));
  }
}

void ProgressReport::items(const char* what, std::int64_t done, std::int64_t total) {
  items_ = std::string(what) + format(" %lld of %lld", static_cast<long long>(done), static_cast<long long>(total));
  if (done == 0) {
    items_start_ = last_line_ = Clock::now();
    items_tenth_ = 0;
    wipe();
    return;
  }
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - items_start_).count();
  const double fraction = static_cast<double>(done) / static_cast<double>(total);
  if (mode_ == Mode::off || !log_) return;
  if (mode_ == Mode::json) {
    std::fprintf(stderr, "{\"event\":\"%s\",\"total\":%lld,\"processed\":%lld,\"time_ms\":%.3f}\n", what,
                 static_cast<long long>(total), static_cast<long long>(done), ms);
    return;
  }
  if (!log_->shows(Level::info) || (mode_ == Mode::automatic && ms < kQuietMs)) return;
  if (done < total) items_ += ", ETA " + format_duration(ms / 1000 * (1 - fraction) / fraction);
  if (terminal_) {
    draw("", fraction, items_);
  } else if (static_cast<int>(fraction * 10) > items_tenth_ || quiet_for_long()) {
    items_tenth_ = static_cast<int>(fraction * 10);
    line(items_);
  }
}

void ProgressReport::draw(const char* what, std::optional<double> fraction, const std::string& figures) {
  const Clock::time_point now = Clock::now();
  if (now - last_output_ < kRedraw) return;
  last_output_ = now;
  winsize size{};
  const int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  std::string text = items_.empty() || figures == items_ ? "" : items_ + "  ";
  if (*what) text += format("%-10s ", what);
  if (fraction) {
    const int width = std::clamp(columns - 70 - static_cast<int>(items_.size()), 10, 40);
    const int filled = std::clamp(static_cast<int>(*fraction * width), 0, width);
    text += "[" + std::string(filled, '#') + std::string(width - filled, '.') + "] " +
            format("%3.0f %% ", 100 * std::clamp(*fraction, 0.0, 1.0));
  }
  text += figures;
  if (static_cast<int>(text.size()) >= columns) text.resize(columns - 1);  // a wrapped line cannot be wiped
  std::fprintf(stderr, "\r%s\x1b[K", text.c_str());
  drawn_ = true;
}

void ProgressReport::print(const Progress& progress) {
  const int tenth = static_cast<int>(progress.fraction * 10);
  // generated text shows its own progress; a line now and then is for text that goes to a file
  const bool by_share = progress.stage != Progress::Stage::decode;
  const bool next_tenth = by_share && tenth > last_tenth_ && items_.empty();
  if (!next_tenth && !quiet_for_long()) return;
  last_tenth_ = tenth;
  const std::string share = progress.total > 0 ? format("%3.0f %%  ", 100 * progress.fraction) : "";
  line((items_.empty() ? "" : items_ + "; ") + verb(progress.stage) + ": " + share + figures(progress));
}

void ProgressReport::line(const std::string& text) {
  last_line_ = Clock::now();
  log_->info(text);
}

bool ProgressReport::quiet_for_long() const { return Clock::now() - last_line_ >= kLineEvery; }

void ProgressReport::wipe() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
}

}  // namespace fastkv::tools
