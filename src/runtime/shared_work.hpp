// Work items in contiguous runs, one run a thread, of which idle threads take from the end.
#pragma once

#include <algorithm>
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

  /// The next items for `thread`, neighbours in its run: half of what is left of it, from 1 to `most`, so that others can
  /// still help at the end. Or one of another's run; or none. Every thread passes the same `count` (below
  /// 2³¹).
  Range next(int thread, std::int64_t count, std::int64_t most) {
    const Range own = split(count, threads_, thread);
    if (const Range taken = take_front(thread, own, most); taken.begin < taken.end) return taken;
    if (nodes_.empty()) return steal(thread, count, [](int) { return true; });
    const int home = nodes_[std::size_t(thread)];
    const auto node = [this](int other) { return nodes_[std::size_t(other)]; };
    const Range near = steal(thread, count, [&](int other) { return node(other) == home; });
    return near.begin < near.end ? near : steal(thread, count, [&](int other) { return node(other) != home; });
  }
  /// The next item for `thread`, or −1 when none is left.
  std::int64_t next(int thread, std::int64_t count) {
    const Range one = next(thread, count, 1);
    return one.begin < one.end ? one.begin : -1;
  }
  /// For the next use: by each thread, after all have met at a barrier and before another one.
  void reset(int thread) { runs_[thread].taken.store(0, std::memory_order_relaxed); }

 private:
  static constexpr std::uint64_t kBack = std::uint64_t{1} << 32;
  struct alignas(64) Run {
    std::atomic<std::uint64_t> taken{0};  ///< items taken from the front; from the back in the high half
  };

  /// An item of another thread's run among those that `among` admits, or none.
  template <class Among>
  Range steal(int thread, std::int64_t count, const Among& among) {
    for (int i = 1; i < threads_; ++i) {
      const int other = (thread + i) % threads_;
      if (!among(other)) continue;
      const Range run = split(count, threads_, other);
      std::atomic<std::uint64_t>& taken = runs_[other].taken;
      std::uint64_t now = taken.load(std::memory_order_relaxed);
      while (left(run, now) > 0) {
        if (!taken.compare_exchange_weak(now, now + kBack, std::memory_order_relaxed)) continue;
        const std::int64_t item = run.end - 1 - std::int64_t(now / kBack);
        return {item, item + 1};
      }
    }
    return {0, 0};
  }

  Range take_front(int thread, Range run, std::int64_t most) {
    std::atomic<std::uint64_t>& taken = runs_[thread].taken;
    std::uint64_t now = taken.load(std::memory_order_relaxed);
    while (left(run, now) > 0) {
      const std::int64_t n = std::clamp<std::int64_t>(left(run, now) / 2, 1, most);
      if (!taken.compare_exchange_weak(now, now + std::uint64_t(n), std::memory_order_relaxed)) continue;
      const std::int64_t first = run.begin + std::int64_t(now % kBack);
      return {first, first + n};
    }
    return {0, 0};
  }
  static std::int64_t left(Range run, std::uint64_t taken) {
    return run.end - run.begin - std::int64_t(taken % kBack + taken / kBack);
  }

  int threads_;
  std::vector<int> nodes_;  ///< [threads], or empty: one node
  std::unique_ptr<Run[]> runs_;
};

}  // namespace fastkv
