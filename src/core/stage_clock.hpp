// Time per stage: a watch for each thread of a team, read a few times a tile (25 ns against milliseconds).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "fastkv/stats.hpp"

namespace fastkv {

/// One thread's watch, on a cache line of its own. start() when work begins (again), then lap(stage) after each piece
/// of it: the time since the last call was that stage's. Time between a lap and the next start() is nobody's: waiting.
class alignas(64) StageWatch {
 public:
  void start() { last_ = now(); }
  void lap(Stage stage) {
    const std::int64_t at = now();
    ns_[int(stage)] += at - last_;
    last_ = at;
  }

 private:
  friend class StageClocks;
  static std::int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  std::int64_t ns_[kStages] = {};
  std::int64_t last_ = 0;
};

/// The watches of a team, and one for operations that are a stage as a whole.
class StageClocks {
 public:
  explicit StageClocks(int threads) : watches_(std::size_t(threads)) {}
  StageWatch& operator[](int thread) { return watches_[std::size_t(thread)]; }

  /// Runs `body`, all of whose time, on however many threads, belongs to `stage`.
  template <class Body>
  auto whole(Stage stage, const Body& body) {
    struct Lap {
      StageWatch& watch;
      Stage stage;
      ~Lap() { watch.lap(stage); }
    } lap{whole_, stage};
    whole_.start();
    return body();
  }

  /// Milliseconds since the last take(), mean over the threads; nothing is waiting yet.
  StageTimes take() {
    StageTimes times;
    for (StageWatch& watch : watches_) add(times, watch, 1e-6 / double(watches_.size()));
    add(times, whole_, 1e-6);
    return times;
  }

 private:
  static void add(StageTimes& times, StageWatch& watch, double scale) {
    for (int s = 0; s < kStages; ++s) {
      times.ms[s] += double(watch.ns_[s]) * scale;
      watch.ns_[s] = 0;
    }
  }
  std::vector<StageWatch> watches_;
  StageWatch whole_;
};

}  // namespace fastkv
