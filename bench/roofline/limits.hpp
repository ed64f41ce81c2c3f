// What this machine can do at most, measured now: arithmetic on registers and reading memory, on the threads of a run;
// or, where the run is on another device, what that device can do.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "backend/device_roofline.hpp"
#include "bench/roofline/memory_reader.hpp"
#include "fastkv/options.hpp"
#include "simd/peaks.hpp"

namespace fastkv {
class ThreadTeam;
}

namespace fastkv::bench {

class Limits {
 public:
  /// Threads are placed as an engine with these options places its own. Throws Error: invalid_option (ISA, CPUs),
  /// unsupported (no such device on this machine). `sizes`: of what is measured on a device.
  explicit Limits(const EngineOptions& options, const RooflineSizes& sizes = {});
  ~Limits();

  /// The device that the options name; null: the CPU.
  DeviceRoofline* device() const { return device_.get(); }
  simd::Isa isa() const { return isa_; }
  /// As many threads as the engine takes for `threads` (0: chosen).
  ThreadTeam& team(int threads);

  /// Operations a second of all threads together, the best of several bursts of a few milliseconds.
  double operations(const simd::PeakLoop& loop, int threads);
  /// The same for the arithmetic called "f32", "bf16" or "int8"; of the device's products, if there is one.
  double operations(const std::string& compute, int threads);
  /// What so many threads read `bytes` of the host's memory with.
  MemoryReader reader(std::size_t bytes, int threads);
  /// Bytes a second that it reads at best; or the device, of its own memory.
  double read_bandwidth(std::size_t bytes, int threads);

 private:
  EngineOptions options_;
  simd::Isa isa_;
  std::unique_ptr<DeviceRoofline> device_;
  std::map<int, std::unique_ptr<ThreadTeam>> teams_;
};

/// Seconds that `body(thread)` takes on all threads of the team, from the moment the last one is ready.
double seconds_on(ThreadTeam& team, const std::function<void(int thread)>& body);

/// "Intel(R) Xeon(R) …"
std::string cpu_name();

/// Makes the process's peak memory count from now on; without effect where the kernel does not allow it.
void reset_peak_memory();

}  // namespace fastkv::bench
