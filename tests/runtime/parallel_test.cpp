// Thread teams: every thread runs, barriers hold, pins are set and taken back, errors come home.
#include "runtime/parallel.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "fastkv/error.hpp"

namespace fastkv {
namespace {

std::vector<int> affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

std::vector<std::vector<int>> unpinned(int threads) { return std::vector<std::vector<int>>(std::size_t(threads)); }

TEST(ThreadTeam, RunsEveryThreadOnceAtOnce) {
  for (const int threads : {1, 2, 3, 4, 7, 16}) {
    ThreadTeam team(unpinned(threads));
    ASSERT_EQ(team.size(), threads);
    for (int round = 0; round < 20; ++round) {
      std::vector<int> calls(std::size_t(threads), 0);
      std::vector<std::thread::id> ids(calls.size());
      team.run([&](int thread) {
        ++calls[std::size_t(thread)];
        ids[std::size_t(thread)] = std::this_thread::get_id();
        team.barrier();  // passes only when all run at the same time
      });
      EXPECT_EQ(calls, std::vector<int>(std::size_t(threads), 1));
      EXPECT_EQ(ids[0], std::this_thread::get_id());
      EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), std::size_t(threads));
    }
  }
}

TEST(ThreadTeam, BarrierSeparatesPhases) {
  for (const int threads : {2, 3, 8}) {
    ThreadTeam team(unpinned(threads));
    std::vector<int> value(std::size_t(threads), 0);  // plain memory: the barrier alone orders it
    std::atomic<int> wrong{0};
    team.run([&](int thread) {
      for (int phase = 1; phase <= 500; ++phase) {
        value[std::size_t(thread)] = phase;
        team.barrier();
        if (std::accumulate(value.begin(), value.end(), 0) != phase * threads) ++wrong;
        team.barrier();
      }
    });
    EXPECT_EQ(wrong, 0) << threads;
  }
}

TEST(ThreadTeam, PinsInsideAndRestoresOutside) {
  const std::vector<int> allowed = affinity();
  const std::vector<int> first{allowed.front()}, last{allowed.back()};
  ThreadTeam forward({first, last, allowed}), backward({last, first, {}}), free(unpinned(3));
  for (int round = 0; round < 5; ++round) {
    std::vector<std::vector<int>> seen(3);
    const auto look = [&](int thread) { seen[std::size_t(thread)] = affinity(); };
    forward.run(look);
    EXPECT_EQ(seen, (std::vector{first, last, allowed}));
    EXPECT_EQ(affinity(), allowed);
    backward.run(look);
    EXPECT_EQ(seen, (std::vector{last, first, allowed}));
    EXPECT_EQ(affinity(), allowed);
    free.run(look);
    EXPECT_EQ(seen, (std::vector{allowed, allowed, allowed}));
  }
}

TEST(ThreadTeam, RestoresTheCallersOwnMask) {
  const std::vector<int> allowed = affinity();
  if (allowed.size() < 2) GTEST_SKIP() << "one CPU allowed";
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(allowed.back(), &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    ThreadTeam free(unpinned(2));
    std::vector<int> inside;
    free.run([&](int thread) {
      if (thread == 0) inside = affinity();
    });
    EXPECT_EQ(inside, std::vector<int>{allowed.back()});
    EXPECT_EQ(affinity(), std::vector<int>{allowed.back()});
    ThreadTeam team({{allowed.front()}, {allowed.back()}});
    team.run([](int) {});
    EXPECT_EQ(affinity(), std::vector<int>{allowed.back()});
    EXPECT_THROW(team.run([](int) { throw std::runtime_error("x"); }), std::runtime_error);
    EXPECT_EQ(affinity(), std::vector<int>{allowed.back()});
  }).join();
}

TEST(ThreadTeam, IgnoresPinsTheSystemRefuses) {
  ThreadTeam team({{8000}, {100000000}, {-1}});
  int calls[3] = {};
  team.run([&](int thread) { ++calls[thread]; });
  EXPECT_TRUE(calls[0] == 1 && calls[1] == 1 && calls[2] == 1);
}

TEST(ThreadTeam, RethrowsAndWorksAgain) {
  ThreadTeam team(unpinned(4));
  for (const int thrower : {0, 1, 3}) {
    try {
      team.run([&](int thread) {
        team.barrier();
        if (thread == thrower) throw Error(ErrorCode::cancelled, "stopped by " + std::to_string(thread));
      });
      FAIL() << "expected an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::cancelled);
      EXPECT_EQ(error.what(), "stopped by " + std::to_string(thrower));
    }
    EXPECT_THROW(team.run([](int) { throw 1; }), int);  // all at once: one of them
    std::atomic<int> sum{0};
    team.run([&](int thread) {
      team.barrier();
      sum += thread;
    });
    EXPECT_EQ(sum, 6);
  }
}

TEST(ThreadTeam, TwoApplicationThreadsAtOnce) {
  const std::vector<int> allowed = affinity();
  std::atomic<std::int64_t> total{0};
  const auto work = [&](int threads) {
    std::vector<std::vector<int>> cpus;
    for (int i = 0; i < threads; ++i) cpus.push_back({allowed[std::size_t(i) % allowed.size()]});
    ThreadTeam team(cpus);
    for (int round = 0; round < 50; ++round) {
      team.run([&](int) {
        for (int i = 0; i < 20; ++i) team.barrier();
        ++total;
      });
    }
  };
  std::thread one(work, 2), two(work, 3);
  work(4);
  one.join();
  two.join();
  EXPECT_EQ(total, 50 * (2 + 3 + 4));
}

TEST(ThreadTeam, RunInsideRunIsAnError) {
  ThreadTeam outer(unpinned(2)), inner(unpinned(2));
  try {
    outer.run([&](int thread) {
      if (thread == 0) inner.run([](int) { FAIL() << "barriers would wait for ever here"; });
    });
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("-t 2: OpenMP gave 1 thread"), std::string::npos) << error.what();
  }
}

TEST(ThreadTeam, NoThreadsIsAnError) { EXPECT_THROW(ThreadTeam(unpinned(0)), Error); }

TEST(ThreadTeam, RefusedThreadsAreAnErrorNotTheEnd) {
  const pid_t child = ::fork();  // a limit cannot be taken back
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::size_t pages = 0;
    std::FILE* statm = std::fopen("/proc/self/statm", "r");
    if (statm == nullptr || std::fscanf(statm, "%zu", &pages) != 1) ::_exit(3);
    const rlim_t bytes = pages * std::size_t(::sysconf(_SC_PAGESIZE)) + (rlim_t{64} << 20);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_AS, &limit);  // room for some stacks of 8 MiB, not for a hundred
    try {
      ThreadTeam team(unpinned(100));
    } catch (const Error& error) {
      ::_exit(error.code() == ErrorCode::out_of_memory && std::string(error.what()).rfind("-t 100: ", 0) == 0 ? 0 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// A server between two requests costs no CPU time: workers stop spinning soon after a run.
TEST(ThreadTeam, IdleWorkersSleep) {
  ThreadTeam team(unpinned(3));
  team.run([](int) {});
  const std::clock_t before = std::clock();  // CPU time of all threads
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(double(std::clock() - before) / CLOCKS_PER_SEC, 0.1);
}

TEST(Split, PartsAreContiguousAndEven) {
  for (const std::int64_t count : {0, 1, 7, 8, 9, 1000003}) {
    for (const int parts : {1, 2, 3, 8, 13}) {
      std::int64_t end = 0;
      for (int part = 0; part < parts; ++part) {
        const Range range = split(count, parts, part);
        EXPECT_EQ(range.begin, end);
        EXPECT_GE(range.end - range.begin, count / parts);
        EXPECT_LE(range.end - range.begin, (count + parts - 1) / parts);
        for (std::int64_t item = range.begin; item < std::min(range.end, range.begin + 9); ++item) {
          const Range found = run_with(count, parts, item);
          EXPECT_EQ(found.begin, range.begin) << item;
          EXPECT_EQ(found.end, range.end) << item;
        }
        end = range.end;
      }
      EXPECT_EQ(end, count);
    }
  }
}

}  // namespace
}  // namespace fastkv
