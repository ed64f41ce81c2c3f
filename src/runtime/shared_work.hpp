// Work items in contiguous runs, one run a thread, of which idle threads take from the end.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/parallel.hpp"

namespace fastkv {

/// Hands out items 0 … count − 1, each once. A thread gets those of its run, split(count, threads, thread), in order:
/// neighbours in memory follow one another, and it comes back to the same memory every time. When they are done it
/// takes the last ones of the others' runs, of its own memory node first, so that a thread that lost its CPU for a
/// while delays nobody by more than the item it holds.
class SharedWork {
 public:
  explicit SharedWork(int threads) : threads_(threads), runs_(new Run[std::size_t(threads)]) {}
  explicit SharedWork(const ThreadTeam& team) : SharedWork(team.size()) { nodes_ = team.nodes(); }

  /// The next item for `thread`, or −1 when none is left. Every thread passes the same `count` (below 2³¹).
  std::int64_t next(int thread, std::int64_t count) {
    const Range own = split(count, threads_, thread);
    if (const std::int64_t taken = take(thread, own, 1); taken >= 0) return own.begin + taken;
    if (nodes_.empty()) return steal(thread, count, [](int) { return true; });
    const int home = nodes_[std::size_t(thread)];
    const auto node = [this](int other) { return nodes_[std::size_t(other)]; };
    const std::int64_t near = steal(thread, count, [&](int other) { return node(other) == home; });
    return near >= 0 ? near : steal(thread, count, [&](int other) { return node(other) != home; });
  }
  /// For the next use: by each thread, after all have met at a barrier and before another one.
  void reset(int thread) { runs_[thread].taken.store(0, std::memory_order_relaxed); }

 private:
  static constexpr std::uint64_t kBack = std::uint64_t{1} << 32;
  struct alignas(64) Run {
    std::atomic<std::uint64_t> taken{0};  ///< items taken from the front; from the back in the high half
  };

  /// An item of another thread's run among those that `among` admits, or −1.
  template <class Among>
  std::int64_t steal(int thread, std::int64_t count, const Among& among) {
    for (int i = 1; i < threads_; ++i) {
      const int other = (thread + i) % threads_;
      if (!among(other)) continue;
      const Range run = split(count, threads_, other);
      if (const std::int64_t taken = take(other, run, kBack); taken >= 0) return run.end - 1 - taken;
    }
    return -1;
  }

  /// The number of items taken before from that side, or −1 when all are taken. `unit`: 1 front, kBack back.
  std::int64_t take(int run, Range range, std::uint64_t unit) {
    std::atomic<std::uint64_t>& taken = runs_[run].taken;
    std::uint64_t now = taken.load(std::memory_order_relaxed);
    do {
      if (std::int64_t(now % kBack + now / kBack) >= range.end - range.begin) return -1;
    } while (!taken.compare_exchange_weak(now, now + unit, std::memory_order_relaxed));
    return std::int64_t(unit == 1 ? now % kBack : now / kBack);
  }

  int threads_;
  std::vector<int> nodes_;  ///< [threads], or empty: one node
  std::unique_ptr<Run[]> runs_;
};

}  // namespace fastkv
