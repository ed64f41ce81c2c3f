// Thread plans on synthetic machines, and detection of this one.
#include "runtime/topology.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "fastkv/error.hpp"

namespace fastkv {
namespace {

using Cpus = std::vector<std::vector<int>>;

constexpr std::size_t GiB = std::size_t{1} << 30;

Topology machine(const std::string& description, double quota = 0, int start_cpu = 0) {
  Topology topology = Topology::synthetic(description);
  topology.cpu_quota = quota;
  topology.start_cpu = start_cpu;
  for (MemoryNode& node : topology.nodes) node.bytes = 64 * GiB;
  return topology;
}

ThreadPlan plan(const Topology& topology, int threads = 0, NumaMode numa = NumaMode::automatic,
                const std::vector<int>& cpus = {}, std::size_t bytes = GiB) {
  return plan_threads(topology, threads, numa, cpus, bytes);
}

Cpus singles(const std::vector<int>& cpus) {
  Cpus result;
  for (const int cpu : cpus) result.push_back({cpu});
  return result;
}

TEST(Topology, SyntheticListsCoresByNode) {
  const Topology topology = Topology::synthetic("numa:2 core:2 pu:2");
  ASSERT_EQ(topology.nodes.size(), 2u);
  EXPECT_EQ(topology.nodes[1].os_index, 1);
  EXPECT_GT(topology.nodes[1].bytes, 0u);
  ASSERT_EQ(topology.cores.size(), 4u);
  EXPECT_EQ(topology.cores[1].cpus, (std::vector{2, 3}));
  EXPECT_EQ(topology.cores[1].node, 0);
  EXPECT_EQ(topology.cores[2].cpus, (std::vector{4, 5}));
  EXPECT_EQ(topology.cores[2].node, 1);
  EXPECT_EQ(topology.cpu_quota, 0);
}

TEST(Topology, SyntheticLinuxNumbering) {  // siblings are numbered after all first threads
  const Topology topology = Topology::synthetic("numa:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)");
  ASSERT_EQ(topology.cores.size(), 4u);
  EXPECT_EQ(topology.cores[0].cpus, (std::vector{0, 4}));
  EXPECT_EQ(topology.cores[3].cpus, (std::vector{3, 7}));
}

TEST(Topology, BadDescriptionIsAnError) { EXPECT_THROW(Topology::synthetic("numa:two"), Error); }

TEST(Topology, DetectAgreesWithTheAffinityMask) {
  cpu_set_t set;
  ASSERT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
  const Topology topology = Topology::detect();
  std::set<int> cpus;
  for (const Core& core : topology.cores) {
    EXPECT_TRUE(std::is_sorted(core.cpus.begin(), core.cpus.end()));
    EXPECT_TRUE(core.node >= 0 && core.node < int(topology.nodes.size()));
    for (const int cpu : core.cpus) {
      EXPECT_TRUE(CPU_ISSET(cpu, &set)) << cpu;
      EXPECT_TRUE(cpus.insert(cpu).second) << cpu << " belongs to two cores";
    }
  }
  EXPECT_EQ(int(cpus.size()), CPU_COUNT(&set));
  EXPECT_EQ(cpus.count(topology.start_cpu), 1u);
  EXPECT_GT(topology.nodes.front().bytes, 0u);
}

TEST(Topology, DetectKeepsToARestrictedMask) {
  cpu_set_t set;
  ASSERT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
  if (CPU_COUNT(&set) < 2) GTEST_SKIP() << "one CPU allowed";
  int last = CPU_SETSIZE - 1;
  while (!CPU_ISSET(last, &set)) --last;
  const pid_t child = ::fork();  // the mask belongs to the process
  ASSERT_GE(child, 0);
  if (child == 0) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    const Topology topology = Topology::detect();
    const bool right = topology.cores.size() == 1 && topology.cores[0].cpus == std::vector{last} &&
                       topology.nodes.size() == 1 &&
                       plan_threads(topology, 0, NumaMode::automatic, {}, 0).cpus.size() == 1;
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Plan, DefaultIsOneThreadAPhysicalCore) {
  const ThreadPlan smt = plan(machine("numa:1 core:4 pu:2"));
  EXPECT_EQ(smt.cpus, (Cpus{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_TRUE(smt.nodes.empty());
  EXPECT_EQ(smt.reason, "4 threads: 4 physical cores allowed");
  const ThreadPlan one = plan(machine("numa:1 core:1 pu:1"));
  EXPECT_EQ(one.cpus, singles({0}));
  EXPECT_EQ(one.reason, "1 thread: 1 physical core allowed");
}

TEST(Plan, QuotaRoundsDownAndLeavesOne) {
  const std::string eight = "numa:1 core:8 pu:1";
  EXPECT_EQ(plan(machine(eight, 0.5)).reason, "1 thread: cgroup quota 0.5 CPUs, 8 cores allowed");
  EXPECT_EQ(plan(machine(eight, 1.9)).reason, "1 thread: cgroup quota 1.9 CPUs, 8 cores allowed");
  EXPECT_EQ(plan(machine(eight, 3.0)).reason, "3 threads: cgroup quota 3 CPUs, 8 cores allowed");
  EXPECT_EQ(plan(machine(eight, 3.5)).reason, "3 threads: cgroup quota 3.5 CPUs, 8 cores allowed");
  EXPECT_EQ(plan(machine(eight, 3.5)).cpus, singles({0, 1, 2}));
  EXPECT_EQ(plan(machine(eight, 8)).reason, "8 threads: 8 physical cores allowed");
  EXPECT_EQ(plan(machine(eight, 1e18)).reason, "8 threads: 8 physical cores allowed");
}

TEST(Plan, AskedForCountsWinOverTheQuota) {
  const ThreadPlan asked = plan(machine("numa:1 core:8 pu:1", 1.5), 4);
  EXPECT_EQ(asked.cpus, singles({0, 1, 2, 3}));
  EXPECT_EQ(asked.reason, "4 threads: asked for; 8 physical cores allowed, above the cgroup quota 1.5 CPUs");
}

TEST(Plan, MoreThreadsThanCoresTakeSiblingsThenWrap) {
  const Topology topology = machine("numa:1 core:2 pu:2(indexes=0,2,1,3)");
  EXPECT_EQ(plan(topology, 2).cpus, (Cpus{{0, 2}, {1, 3}}));
  EXPECT_EQ(plan(topology, 3).cpus, singles({0, 1, 2}));
  EXPECT_EQ(plan(topology, 4).cpus, singles({0, 1, 2, 3}));
  EXPECT_EQ(plan(topology, 4).reason, "4 threads: asked for; 2 physical cores allowed, SMT siblings used");
  EXPECT_EQ(plan(topology, 6).cpus, singles({0, 1, 2, 3, 0, 1}));
  EXPECT_EQ(plan(topology, 6).reason, "6 threads: asked for; 2 physical cores allowed, threads share 4 CPUs");
}

TEST(Plan, CoresWithDifferentThreadCounts) {  // performance cores with SMT, efficiency cores without
  Topology topology;
  topology.nodes = {{0, GiB}};
  topology.cores = {{{0, 1}, 0}, {{2, 3}, 0}, {{4}, 0}, {{5}, 0}};
  EXPECT_EQ(plan(topology).cpus, (Cpus{{0, 1}, {2, 3}, {4}, {5}}));
  EXPECT_EQ(plan(topology, 7).cpus, singles({0, 2, 4, 5, 1, 3, 0}));
}

TEST(Plan, IsolateStaysOnTheNodeItStartedOn) {
  const Topology topology = machine("numa:4 core:2 pu:1", 0, 5);
  const ThreadPlan isolated = plan(topology, 0, NumaMode::isolate);
  EXPECT_EQ(isolated.cpus, singles({4, 5}));
  EXPECT_EQ(isolated.nodes, std::vector{2});
  EXPECT_EQ(isolated.mode, NumaMode::isolate);
  EXPECT_EQ(isolated.reason, "2 threads: 2 physical cores of node 2 allowed; numa isolate");
  EXPECT_EQ(plan(topology, 3, NumaMode::isolate).cpus, singles({4, 5, 4}));
  EXPECT_EQ(plan(topology, 0, NumaMode::isolate, {0, 1, 2, 3}).cpus, singles({0, 1}));  // may not stay where it is
}

TEST(Plan, DistributeTakesEqualNumbersNodeByNode) {
  for (const int nodes : {2, 4, 8}) {
    const Topology topology = machine("numa:" + std::to_string(nodes) + " core:4 pu:2");
    for (const int threads : {0, nodes + 1, nodes * 4, nodes * 8}) {
      const ThreadPlan spread = plan(topology, threads, NumaMode::distribute);
      EXPECT_EQ(int(spread.nodes.size()), nodes);
      ASSERT_EQ(int(spread.cpus.size()), threads == 0 ? nodes * 4 : threads);
      EXPECT_TRUE(std::is_sorted(spread.node.begin(), spread.node.end()));
      std::vector<int> of_node(std::size_t(nodes), 0);
      std::set<std::vector<int>> distinct;
      for (std::size_t i = 0; i < spread.cpus.size(); ++i) {
        EXPECT_EQ(spread.cpus[i].front() / 8, spread.node[i]) << i;  // 8 CPUs a node
        ++of_node[std::size_t(spread.node[i])];
        distinct.insert(spread.cpus[i]);
      }
      EXPECT_EQ(distinct.size(), spread.cpus.size());
      const auto [least, most] = std::minmax_element(of_node.begin(), of_node.end());
      EXPECT_LE(*most - *least, 1);
    }
  }
  const ThreadPlan two = plan(machine("numa:2 core:2 pu:1"), 3, NumaMode::distribute);
  EXPECT_EQ(two.cpus, singles({0, 1, 2}));
  EXPECT_EQ(two.node, (std::vector{0, 0, 1}));
  EXPECT_EQ(two.reason, "3 threads: asked for; 4 physical cores allowed; numa distribute over 2 nodes");
}

TEST(Plan, DistributeOverUnequalNodes) {
  Topology topology = machine("numa:2 core:4 pu:1");
  topology.cores.erase(topology.cores.begin() + 4, topology.cores.begin() + 7);  // node 1 keeps CPU 7
  EXPECT_EQ(plan(topology, 0, NumaMode::distribute).cpus, singles({0, 1, 2, 3, 7}));
  EXPECT_EQ(plan(topology, 2, NumaMode::distribute).cpus, singles({0, 7}));
}

TEST(Plan, InterleaveSpreadsMemory) {
  const ThreadPlan interleaved = plan(machine("numa:2 core:2 pu:1"), 3, NumaMode::interleave);
  EXPECT_EQ(interleaved.cpus, singles({0, 1, 2}));
  EXPECT_EQ(interleaved.nodes, (std::vector{0, 1}));
  EXPECT_EQ(interleaved.mode, NumaMode::interleave);
}

TEST(Plan, NumactlLeavesThreadsAlone) {
  const Topology topology = machine("numa:2 core:2 pu:2");
  const ThreadPlan free = plan(topology, 0, NumaMode::numactl);
  EXPECT_EQ(free.cpus, Cpus(4));
  EXPECT_TRUE(free.nodes.empty());
  EXPECT_EQ(plan(topology, 2, NumaMode::numactl, {1, 4, 5}).cpus, (Cpus{{1, 4, 5}, {1, 4, 5}}));
}

TEST(Plan, OffUsesCoresInOrderAndNoPolicy) {
  const ThreadPlan off = plan(machine("numa:2 core:2 pu:1", 0, 3), 0, NumaMode::off);
  EXPECT_EQ(off.cpus, singles({0, 1, 2, 3}));
  EXPECT_TRUE(off.nodes.empty());
  EXPECT_EQ(off.mode, NumaMode::off);
}

TEST(Plan, AutomaticIsolatesWhatFitsOneNode) {
  const Topology topology = machine("numa:2 core:4 pu:1", 0, 6);
  const auto automatic = [&](int threads, std::size_t bytes) {
    return plan(topology, threads, NumaMode::automatic, {}, bytes);
  };
  EXPECT_EQ(automatic(0, 64 * GiB).nodes, std::vector{1});
  EXPECT_EQ(automatic(4, GiB).nodes, std::vector{1});
  EXPECT_EQ(automatic(4, 3 * GiB / 2).reason,
            "4 threads: asked for; 4 physical cores of node 1 allowed; numa isolate (auto: it holds the weights and "
            "cache of at most 1.5 GiB)");
  const ThreadPlan large = automatic(0, 100 * GiB);
  EXPECT_EQ(large.mode, NumaMode::distribute);
  EXPECT_EQ(large.cpus, singles({0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(large.reason,
            "8 threads: 8 physical cores allowed; numa distribute over 2 nodes (auto: node 1 does not hold the weights "
            "and cache of at most 100 GiB)");
  EXPECT_EQ(automatic(0, 64 * GiB + 1).mode, NumaMode::distribute);
  EXPECT_EQ(
      automatic(5, GiB).reason,
      "5 threads: asked for; 8 physical cores allowed; numa distribute over 2 nodes (auto: node 1 has 4 cores for "
      "the 5 threads)");
}

TEST(Plan, OneNodeNeedsNoPolicy) {
  const Topology topology = machine("numa:1 core:2 pu:1");
  for (const NumaMode mode : {NumaMode::isolate, NumaMode::distribute, NumaMode::interleave, NumaMode::mirror}) {
    const ThreadPlan single = plan(topology, 0, mode, {}, 1000 * GiB);
    EXPECT_EQ(single.cpus, singles({0, 1}));
    EXPECT_TRUE(single.nodes.empty());
    EXPECT_NE(single.reason.find("; one memory node, --numa "), std::string::npos) << single.reason;
  }
  EXPECT_EQ(plan(topology).reason, "2 threads: 2 physical cores allowed");
  // CPUs of one node only: the other node is out of reach.
  EXPECT_TRUE(plan(machine("numa:2 core:2 pu:1"), 0, NumaMode::interleave, {0, 1}).nodes.empty());
}

TEST(Plan, OnlyTheGivenCpus) {
  const Topology topology = machine("numa:1 core:4 pu:2");
  const ThreadPlan some = plan(topology, 0, NumaMode::automatic, {5, 2, 3, 99});
  EXPECT_EQ(some.cpus, (Cpus{{2, 3}, {5}}));
  EXPECT_EQ(some.reason, "2 threads: 2 physical cores of -C, -Cr allowed");
  try {
    plan(topology, 0, NumaMode::automatic, {12, 9, 10, 11});
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_option);
    EXPECT_STREQ(error.what(), "-C, -Cr: expected some of the allowed CPUs 0-7, found 9-12");
  }
}

TEST(Plan, BadThreadCountsNameTheFlag) {
  for (const int threads : {-1, -2147483647 - 1, 4097, 2147483647}) {
    try {
      plan(machine("numa:1 core:2 pu:1"), threads);
      FAIL() << "expected an error for " << threads;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_option);
      EXPECT_EQ(std::string(error.what()), "-t " + std::to_string(threads) + ": expected 1 to 4096, or 0 to choose");
    }
  }
}

}  // namespace
}  // namespace fastkv
