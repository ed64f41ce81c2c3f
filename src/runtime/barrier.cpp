// Why no thread can pass too early, and why what was written before is seen after, is said at each step.
#include "runtime/barrier.hpp"

#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <map>

namespace fastkv {
namespace {

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Groups numbered from 0. Groups of one thread each would only add a step: they become one group.
std::vector<int> number(const std::vector<int>& groups) {
  std::map<int, int> index;
  for (const int group : groups) index.emplace(group, int(index.size()));
  std::vector<int> result;
  for (const int group : groups) result.push_back(index.size() == groups.size() ? 0 : index[group]);
  return result;
}

}  // namespace

Barrier::Barrier(const std::vector<int>& groups, int spins)
    : group_of_(number(groups)),
      groups_(*std::max_element(group_of_.begin(), group_of_.end()) + 1),
      meetings_(std::make_unique<Meeting[]>(std::size_t(groups_) + 1)),
      spins_(spins) {
  for (const int group : group_of_) ++meetings_[std::size_t(group)].size;
  meetings_[std::size_t(groups_)].size = groups_;
}

bool Barrier::Meeting::arrive() {
  // Release: hands on what this thread wrote, and what others handed to it. Acquire: the last one takes it all, because
  // the additions form one release sequence.
  return arrived.fetch_add(1, std::memory_order_acq_rel) == size - 1;
}

void Barrier::Meeting::open() {
  // Nobody counts in again before it has seen the new generation, and the release puts the zero before it.
  arrived.store(0, std::memory_order_relaxed);
  generation.store(generation.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void Barrier::wait(const Meeting& meeting, std::uint32_t generation) const {
  for (int spin = 0; meeting.generation.load(std::memory_order_acquire) == generation; ++spin) {
    if (spin < spins_) {
      pause();
    } else {
      spin = spins_;
      ::sched_yield();
    }
  }
}

void Barrier::arrive_and_wait(int thread) {
  Meeting& group = meetings_[std::size_t(group_of_[std::size_t(thread)])];
  // Read before counting in: until this thread has, the generation cannot change.
  const std::uint32_t generation = group.generation.load(std::memory_order_relaxed);
  if (!group.arrive()) return wait(group, generation);
  if (groups_ > 1) {
    Meeting& all = meetings_[std::size_t(groups_)];
    const std::uint32_t general = all.generation.load(std::memory_order_relaxed);
    if (all.arrive()) {
      all.open();
    } else {
      wait(all, general);
    }
  }
  group.open();  // after all groups have met; passes on to this group what the others wrote
}

void Barrier::reset() {
  for (int i = 0; i <= groups_; ++i) meetings_[std::size_t(i)].arrived.store(0, std::memory_order_relaxed);
}

}  // namespace fastkv
