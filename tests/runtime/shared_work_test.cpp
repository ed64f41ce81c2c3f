// Items handed out once each, in runs, and taken over from a thread that does not come.
#include "runtime/shared_work.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace fastkv::test {
namespace {

TEST(SharedWork, AThreadGetsItsRunInOrder) {
  SharedWork work(3);
  std::vector<std::int64_t> taken;
  for (int i = 0; i < 4; ++i) taken.push_back(work.next(1, 11));
  const Range own = split(11, 3, 1);
  EXPECT_EQ(taken, (std::vector<std::int64_t>{own.begin, own.begin + 1, own.begin + 2, own.begin + 3}));
}

TEST(SharedWork, SeveralAtOnceWhileMuchIsLeftThenOneByOne) {
  SharedWork work(2);
  std::int64_t expected = 0, before = 4;
  for (Range taken; (taken = work.next(0, 200, 4)).begin < 100 && taken.begin < taken.end;) {
    EXPECT_EQ(taken.begin, expected);
    EXPECT_LE(taken.end - taken.begin, before);  // half of what is left, at most 4
    before = taken.end - taken.begin, expected = taken.end;
    if (expected == 100) break;
  }
  EXPECT_EQ(expected, 100);
  EXPECT_EQ(before, 1);
  const Range other = work.next(0, 200, 4);  // of the other thread's run one at a time, from the end
  EXPECT_EQ(other.begin, 199);
  EXPECT_EQ(other.end, 200);
}

TEST(SharedWork, TheOthersTakeWhatAnAbsentThreadLeaves) {
  SharedWork work(3);
  std::vector<int> times(10);
  const std::int64_t first = work.next(2, 10);  // and never again
  ++times[std::size_t(first)];
  for (bool left = true; left;) {
    left = false;
    for (const int thread : {0, 1}) {
      const std::int64_t item = work.next(thread, 10);
      if (item >= 0) ++times[std::size_t(item)], left = true;
    }
  }
  EXPECT_EQ(times, std::vector<int>(10, 1));
  EXPECT_EQ(first, split(10, 3, 2).begin);
}

TEST(SharedWork, TheOwnNodesRunsBeforeOthers) {
  ThreadPlan plan;
  plan.cpus.resize(4);
  plan.node = {0, 0, 1, 1};
  const ThreadTeam team(plan);
  SharedWork work(team);
  std::vector<std::int64_t> taken;
  for (std::int64_t item; (item = work.next(1, 16)) >= 0;) taken.push_back(item);
  // its own run forwards, its neighbour's from the end, then the other node's
  EXPECT_EQ(taken, (std::vector<std::int64_t>{4, 5, 6, 7, 3, 2, 1, 0, 11, 10, 9, 8, 15, 14, 13, 12}));
}

TEST(SharedWork, FewerItemsThanThreadsAndNone) {
  SharedWork work(5);
  EXPECT_EQ(work.next(0, 0), -1);
  EXPECT_GE(work.next(0, 2), 0);
  EXPECT_GE(work.next(4, 2), 0);
  EXPECT_EQ(work.next(2, 2), -1);
}

TEST(SharedWork, EachItemOnceOnRacingThreadsAndAgainAfterAReset) {
  constexpr int kThreads = 4, kItems = 5000;
  SharedWork work(kThreads);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::atomic<int>> times(kItems);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (Range taken; (taken = work.next(t, kItems, 3)).begin < taken.end;)
          for (std::int64_t item = taken.begin; item < taken.end; ++item) ++times[std::size_t(item)];
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& n : times) ASSERT_EQ(n, 1);
    for (int t = 0; t < kThreads; ++t) work.reset(t);
  }
}

}  // namespace
}  // namespace fastkv::test
