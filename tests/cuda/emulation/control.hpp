// What a test sets of the emulated device: the order of threads and blocks, the device's memory, whether there is one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace emulation {

/// A mistake in how device code is written that hardware would answer with a hang, garbage or a crash.
struct Fault : std::logic_error {
  using std::logic_error::logic_error;
};

enum class Order { forward, backward, shuffled };

/// Which of the threads that could go on does: a barrier that is missing shows as a difference between schedules.
struct Schedule {
  Order order = Order::forward;  ///< of the threads of a block and of the blocks of a grid
  std::uint64_t seed = 0;        ///< of `shuffled`
  bool early_copies = false;     ///< asynchronous copies land when they are issued, else when they are waited for
  int workers = 2;               ///< operating system threads that take blocks
};

struct Device {
  bool present = true;
  bool failed = false;  ///< a kernel has crashed: whatever is asked of the device, it answers that
  std::size_t memory = std::size_t(8) << 30;  ///< bytes
  /// The host crashes when it touches device memory, as with a GPU. Opening and closing it takes system calls for each
  /// allocation: for small models.
  bool guarded = false;
};

Schedule& schedule();
Device& device();

/// Bytes of device memory handed out at the moment, and the most since reset_peak().
std::size_t used_memory();
std::size_t peak_memory();
void reset_peak();

/// Opens guarded device memory for as long as it lives: what a kernel or a copy holds while it runs.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

/// Kernels run since the process began.
std::uint64_t launches();

/// Sets a schedule for as long as it lives.
class Scheduled {
 public:
  explicit Scheduled(const Schedule& wanted) : before_(schedule()) { schedule() = wanted; }
  ~Scheduled() { schedule() = before_; }
  Scheduled(const Scheduled&) = delete;
  Scheduled& operator=(const Scheduled&) = delete;

 private:
  Schedule before_;
};

/// Guards device memory for as long as it lives.
class Guarded {
 public:
  Guarded() : before_(device().guarded) { device().guarded = true; }
  ~Guarded() { device().guarded = before_; }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

 private:
  bool before_;
};

}  // namespace emulation
