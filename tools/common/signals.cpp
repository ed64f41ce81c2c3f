// SIGINT and SIGTERM handlers.
#include "common/signals.hpp"

#include <signal.h>
#include <unistd.h>

namespace fastkv::tools {

namespace {

std::atomic<bool> stop{false};
std::atomic<bool> cooperative{false};
std::atomic<int> received{SIGINT};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

extern "C" void handle_signal(int number) {
  if (!cooperative) _exit(128 + number);
  received = number;
  stop = true;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = handle_signal;  // no SA_RESTART: a blocked read or write returns
  sigemptyset(&action.sa_mask);
  for (int number : {SIGINT, SIGTERM}) {
    struct sigaction old = {};
    sigaction(number, nullptr, &old);
    if (old.sa_handler != SIG_IGN) sigaction(number, &action, nullptr);  // nohup and background jobs stay as they are
  }
}

const std::atomic<bool>& stop_flag() {
  cooperative = true;
  return stop;
}

int stop_exit_status() { return 128 + received; }

}  // namespace fastkv::tools
