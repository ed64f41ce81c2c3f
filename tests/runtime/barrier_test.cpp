// The barrier under every grouping: nobody passes early, everything written before is seen after, for thousands of
// rounds and with more threads than CPUs.
#include "runtime/barrier.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>
#include <vector>

namespace fastkv {
namespace {

/// `threads` std::threads meet `rounds` times; returns how often one saw another too early or too late.
int run_rounds(Barrier& barrier, int threads, int rounds) {
  std::vector<int> written(std::size_t(threads), 0);  // plain memory: the barrier alone orders it
  std::vector<int> wrong(std::size_t(threads), 0);
  std::vector<std::thread> team;
  for (int thread = 0; thread < threads; ++thread) {
    team.emplace_back([&, thread] {
      const auto own = std::size_t(thread);
      for (int round = 1; round <= rounds; ++round) {
        written[own] = round;
        barrier.arrive_and_wait(thread);
        if (std::accumulate(written.begin(), written.end(), 0) != round * threads) ++wrong[own];
        barrier.arrive_and_wait(thread);
      }
    });
  }
  for (std::thread& thread : team) thread.join();
  return std::accumulate(wrong.begin(), wrong.end(), 0);
}

TEST(Barrier, HoldsForEveryNumberOfThreadsAndGroups) {
  for (int threads = 1; threads <= 16; ++threads) {
    for (const int size : {1, 2, 3, 5, 16}) {  // threads of a group, the last one smaller
      std::vector<int> groups;
      for (int thread = 0; thread < threads; ++thread) groups.push_back(thread / size);
      Barrier barrier(groups, threads > 2 ? 0 : 2000);
      EXPECT_EQ(run_rounds(barrier, threads, 60), 0) << threads << " threads, groups of " << size;
    }
  }
}

TEST(Barrier, ThousandsOfRounds) {
  for (const std::vector<int>& groups :
       {std::vector<int>{0, 0}, {0, 1, 0, 1}, {7, 7, 7, 3}, {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}}) {
    Barrier barrier(groups, groups.size() > 2 ? 0 : 2000);
    EXPECT_EQ(run_rounds(barrier, int(groups.size()), groups.size() > 4 ? 1000 : 3000), 0)
        << groups.size() << " threads";
  }
}

TEST(Barrier, GroupsOfOneAreOneGroup) {
  EXPECT_EQ(Barrier({0}, 0).groups(), 1);
  EXPECT_EQ(Barrier({0, 1, 2}, 0).groups(), 1);
  EXPECT_EQ(Barrier({5, 9, 5}, 0).groups(), 2);
  EXPECT_EQ(Barrier({4, 4, 4}, 0).groups(), 1);
}

TEST(Barrier, WorksAgainAfterThreadsLeft) {
  Barrier barrier({0, 0, 1, 1}, 0);
  for (int round = 0; round < 3; ++round) {
    std::thread one([&] { barrier.arrive_and_wait(0); }), two([&] { barrier.arrive_and_wait(1); }),
        three([&] { barrier.arrive_and_wait(2); });
    barrier.arrive_and_wait(3);
    one.join();
    two.join();
    three.join();
    barrier.reset();
    EXPECT_EQ(run_rounds(barrier, 4, 20), 0);
  }
}

}  // namespace
}  // namespace fastkv
