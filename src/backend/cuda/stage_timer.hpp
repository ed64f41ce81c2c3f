// Time on the device per stage, and how far the host may run ahead of it.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <vector>

#include "backend/backend.hpp"

namespace fastkv::cuda {

/// Events of one stream, created once and used again.
class EventPool {
 public:
  EventPool() = default;
  ~EventPool();
  EventPool(const EventPool&) = delete;
  /// Records the next event on `stream` and returns its number, counted from the last reset().
  std::size_t record(cudaStream_t stream);
  cudaEvent_t operator[](std::size_t i) const { return events_[i]; }
  std::size_t used() const { return used_; }
  void reset() { used_ = 0; }

 private:
  std::vector<cudaEvent_t> events_;
  std::size_t used_ = 0;
};

/// A watch on a stream: start() when an operation begins, lap(stage) behind the work of a stage. Reading it waits.
class StageTimer {
 public:
  explicit StageTimer(cudaStream_t stream) : stream_(stream) {}
  void start();
  void lap(Stage stage);
  /// Runs `body`, all of whose work on the device belongs to `stage`.
  template <class Body>
  void whole(Stage stage, const Body& body) {
    start();
    body();
    lap(stage);
  }
  /// Milliseconds since the last take(); what no stage claims, on the host or in the graphs of decode, is `wait`.
  StageTimes take();

 private:
  static constexpr int kNobody = -1;
  cudaStream_t stream_;
  EventPool events_;
  std::vector<int> stages_;  ///< of the time before each event
  std::chrono::steady_clock::time_point taken_ = std::chrono::steady_clock::now();
};

/// Keeps the host at most two pieces of work ahead of the device, so that progress is true and a stop is heeded.
class Pace {
 public:
  explicit Pace(cudaStream_t stream) : stream_(stream) {}
  ~Pace();
  Pace(const Pace&) = delete;
  /// After a piece of work was given: waits until the one before the last is done, then polls. Throws cancelled.
  void step(RunControl& control);

 private:
  static constexpr int kAhead = 2;
  cudaStream_t stream_;
  cudaEvent_t done_[kAhead] = {};
  int next_ = 0;
};

}  // namespace fastkv::cuda
