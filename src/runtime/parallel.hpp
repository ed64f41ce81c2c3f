// A team of pinned threads: one OpenMP region per call, its own barrier and work split inside. The only user of OpenMP.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace fastkv {

/// n threads that run a body together. Used by one caller at a time; the calling thread is thread 0.
class ThreadTeam {
 public:
  /// `cpus[i]`: OS CPUs thread i is pinned to while it runs a body (empty: left alone). A pin that the system refuses
  /// is dropped. Throws Error out_of_memory when the system cannot start that many threads.
  explicit ThreadTeam(std::vector<std::vector<int>> cpus);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return int(cpus_.size()); }

  /// Runs body(thread) once on every thread, 0 ≤ thread < size(), inside one OpenMP parallel region, and returns when
  /// all are done. The first exception thrown by a body is rethrown here; a body that throws must not leave the others
  /// waiting at a barrier (throw before or after the last one only). The caller's own affinity mask is restored.
  /// Throws Error out_of_memory, without running any body, when OpenMP gives fewer threads (OMP_THREAD_LIMIT, or run()
  /// inside another run()).
  void run(const std::function<void(int thread)>& body);

  /// Inside run: waits for all threads. Spins briefly, then yields, so that oversubscribed cores make progress.
  void barrier();

 private:
  std::vector<std::vector<int>> cpus_;
  int spins_;  ///< pauses before a waiting thread yields its CPU; 0: more threads than CPUs
  // Waiting threads read one line while arriving threads write the other.
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> generation_{0};
};

/// Hands out 0, 1, … `count` − 1, each once, to whichever thread asks first.
class WorkQueue {
 public:
  explicit WorkQueue(std::int64_t count) : count_(count) {}
  /// The next item, or −1 when none is left.
  std::int64_t next() {
    const std::int64_t item = next_.fetch_add(1, std::memory_order_relaxed);
    return item < count_ ? item : -1;
  }

 private:
  std::atomic<std::int64_t> next_{0};
  std::int64_t count_;
};

/// [begin, end) of part `part` of `parts` of `count` items: contiguous, sizes differ by at most one.
struct Range {
  std::int64_t begin, end;
};
inline Range split(std::int64_t count, int parts, int part) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace fastkv
