// A barrier that spins: threads meet in groups that share a cache, then the groups meet.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace fastkv {

/// Lets a fixed set of threads wait for one another. A line of memory that all threads of a large machine write moves
/// between its sockets once per thread; here only the last thread of each group writes the line of all groups, and the
/// others read a line of their own group.
class Barrier {
 public:
  /// `groups[i]`: any number that names the group of thread i. `spins`: pauses before a waiting thread yields its CPU;
  /// 0: at once, where threads outnumber CPUs.
  Barrier(const std::vector<int>& groups, int spins);

  /// Waits for all threads; what each wrote before, all may read after. Never sleeps.
  void arrive_and_wait(int thread);
  /// After threads left without meeting (an exception). No thread may be waiting.
  void reset();

  int groups() const { return groups_; }

 private:
  struct Meeting {
    // Waiting threads read one line while arriving threads write the other.
    alignas(64) std::atomic<int> arrived{0};
    alignas(64) std::atomic<std::uint32_t> generation{0};
    int size = 0;

    /// Counts one in; true for the last, which must then call open().
    bool arrive();
    void open();
  };
  void wait(const Meeting& meeting, std::uint32_t generation) const;

  std::vector<int> group_of_;  ///< [threads] index into meetings_
  int groups_;
  std::unique_ptr<Meeting[]> meetings_;  ///< [groups], then that of all groups
  int spins_;
};

}  // namespace fastkv
