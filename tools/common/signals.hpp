// SIGINT and SIGTERM: the first one stops the run in good order, the second one kills.
#pragma once

#include <atomic>

namespace fastkv::tools {

/// Installs the handlers. Until stop_flag() has been asked for, a signal ends the program at once with 130 or 143:
/// there is nothing to print yet. Calls blocked in the kernel return EINTR.
void install_signal_handlers();

/// The flag that the first signal raises from now on; the second signal has its default effect.
const std::atomic<bool>& stop_flag();

/// 130 after SIGINT, 143 after SIGTERM.
int stop_exit_status();

}  // namespace fastkv::tools
