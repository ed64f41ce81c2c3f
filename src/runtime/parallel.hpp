// A team of pinned threads: one OpenMP region per call, its own barrier and work split inside. The only user of OpenMP.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/barrier.hpp"
#include "runtime/topology.hpp"

namespace fastkv {

/// Inside ThreadTeam::run: the memory node of the calling thread, an index into ThreadPlan::nodes. Elsewhere 0.
int current_node();

/// n threads that run a body together. Used by one caller at a time; the calling thread is thread 0.
class ThreadTeam {
 public:
  /// One thread for each of `plan.cpus`, pinned to them while it runs a body (empty: left alone). A pin that the system
  /// refuses is dropped. Throws Error out_of_memory when the system cannot start that many threads.
  explicit ThreadTeam(ThreadPlan plan);
  /// Threads of a plan that names CPUs only.
  explicit ThreadTeam(std::vector<std::vector<int>> cpus);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return int(plan_.cpus.size()); }
  /// [threads] the memory node of each, ascending; empty: all one.
  const std::vector<int>& nodes() const { return plan_.node; }

  /// Runs body(thread) once on every thread, 0 ≤ thread < size(), inside one OpenMP parallel region, and returns when
  /// all are done. The first exception thrown by a body is rethrown here; a body that throws must not leave the others
  /// waiting at a barrier (throw before or after the last one only). The caller's own affinity mask is restored.
  /// Throws Error out_of_memory, without running any body, when OpenMP gives fewer threads (OMP_THREAD_LIMIT, or run()
  /// inside another run()).
  void run(const std::function<void(int thread)>& body);

  /// Inside run: waits for all threads. Spins briefly, then yields, so that oversubscribed cores make progress.
  void barrier();

 private:
  ThreadPlan plan_;
  Barrier barrier_;
};

/// [begin, end) of part `part` of `parts` of `count` items: contiguous, sizes differ by at most one.
struct Range {
  std::int64_t begin, end;
};
inline Range split(std::int64_t count, int parts, int part) {
  return {count * part / parts, count * (part + 1) / parts};
}
/// The part of split(count, parts, …) that `item` lies in.
inline Range run_with(std::int64_t count, int parts, std::int64_t item) {
  return split(count, parts, int(((item + 1) * parts + count - 1) / count) - 1);
}

}  // namespace fastkv
