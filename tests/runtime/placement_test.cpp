// Placement on synthetic machines: every item has one node, parts follow the threads, and binding never fails.
#include "runtime/placement.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

namespace fastkv {
namespace {

constexpr std::size_t GiB = std::size_t{1} << 30;

struct Machine {
  const char* name;
  Topology topology;
};

Topology synthetic(const std::string& description, double quota = 0) {
  Topology topology = Topology::synthetic(description);
  topology.cpu_quota = quota;
  for (MemoryNode& node : topology.nodes) node.bytes = 64 * GiB;
  return topology;
}

/// Nodes of 6, 1 and 3 cores; hwloc's descriptions know equal ones only.
Topology unequal() {
  Topology topology = synthetic("numa:3 core:6 pu:2");
  std::vector<Core> cores;
  std::map<int, int> left{{0, 6}, {1, 1}, {2, 3}};
  for (const Core& core : topology.cores) {
    if (left[core.node]-- > 0) cores.push_back(core);
  }
  topology.cores = cores;
  return topology;
}

/// Two nodes of which an affinity mask leaves CPUs 2, 3 (one core of the first) and 8-13 (three of the second).
Topology masked() {
  Topology topology = synthetic("numa:2 core:4 pu:2");
  std::erase_if(topology.cores, [](const Core& core) {
    const int first = core.cpus.front();
    return !(first == 2 || (first >= 8 && first <= 12));
  });
  return topology;
}

std::vector<Machine> machines() {
  return {{"1 node", synthetic("numa:1 core:8 pu:2")},
          {"2 nodes", synthetic("numa:2 core:4 pu:1")},
          {"4 nodes, SMT", synthetic("numa:4 core:4 pu:2")},
          {"8 nodes, 2 caches each", synthetic("numa:8 l3:2 core:2 pu:2")},
          {"unequal nodes", unequal()},
          {"affinity mask", masked()},
          {"quota 3.5 on 2 nodes", synthetic("numa:2 core:4 pu:2", 3.5)}};
}

ThreadPlan plan(const Topology& topology, int threads, NumaMode mode) {
  return plan_threads(topology, threads, mode, {}, GiB);
}

TEST(Placement, EveryItemIsPlacedOnceInProportionToThreads) {
  for (const Machine& machine : machines()) {
    for (const NumaMode mode : {NumaMode::distribute, NumaMode::mirror}) {
      for (const int threads : {0, 1, 2, 3, 7, 16, 50}) {  // fewer than nodes, more than CPUs
        const ThreadPlan of = plan(machine.topology, threads, mode);
        const Placement placement(of);
        ASSERT_EQ(placement.nodes(), std::max(1, int(of.nodes.size()))) << machine.name;
        for (const std::int64_t count : {0, 1, 3, 8, 128, 8016}) {
          SCOPED_TRACE(std::string(machine.name) + ", " + std::to_string(threads) + " threads, " +
                       std::to_string(count) + " items");
          const std::vector<std::int64_t> parts = placement.parts(count);
          ASSERT_EQ(int(parts.size()), placement.nodes() + 1);
          EXPECT_EQ(parts.front(), 0);
          EXPECT_EQ(parts.back(), count);
          for (int node = 0; node < placement.nodes(); ++node) {
            const Range part = placement.part(count, node);
            EXPECT_EQ(part.begin, parts[std::size_t(node)]);  // contiguous: the end of one is the begin of the next
            EXPECT_EQ(part.end, parts[std::size_t(node) + 1]);
            EXPECT_LE(part.begin, part.end);
            const double share =
                of.node.empty() || placement.nodes() == 1
                    ? 1.0
                    : double(std::count(of.node.begin(), of.node.end(), node)) / double(of.node.size());
            EXPECT_LT(std::fabs(double(part.end - part.begin) - share * double(count)), 1.0) << "node " << node;
          }
        }
      }
    }
  }
}

TEST(Placement, HeadsDivideEvenlyOverNodes) {
  for (const int nodes : {2, 4, 8}) {
    const Placement placement(
        plan(synthetic("numa:" + std::to_string(nodes) + " core:4 pu:2"), 0, NumaMode::distribute));
    for (int node = 0; node < nodes; ++node) {
      EXPECT_EQ(placement.part(8, node).begin, 8 / nodes * node);
      EXPECT_EQ(placement.part(8, node).end, 8 / nodes * (node + 1));
    }
  }
}

TEST(Placement, OtherModesSplitNothing) {
  const Topology topology = synthetic("numa:2 core:4 pu:1");
  for (const NumaMode mode :
       {NumaMode::off, NumaMode::isolate, NumaMode::interleave, NumaMode::numactl, NumaMode::automatic}) {
    const Placement placement(plan(topology, 0, mode));
    EXPECT_EQ(placement.nodes(), 1);
    EXPECT_EQ(placement.copies(), 1);
    EXPECT_EQ(placement.part(100, 0).end, 100);
  }
  EXPECT_EQ(Placement().parts(5), (std::vector<std::int64_t>{0, 5}));
}

TEST(Placement, MirrorKeepsACopyPerNode) {
  for (const int nodes : {1, 2, 4, 8}) {
    const Topology topology = synthetic("numa:" + std::to_string(nodes) + " core:2 pu:1");
    EXPECT_EQ(Placement(plan(topology, 0, NumaMode::mirror)).copies(), nodes);
    EXPECT_EQ(Placement(plan(topology, 0, NumaMode::distribute)).copies(), 1);
  }
}

// What a thread is given by its number lies on its node.
TEST(Placement, SplitGivesThreadsTheirNodesPart) {
  for (const Machine& machine : machines()) {
    for (const int threads : {0, 2, 5, 8, 33}) {
      const ThreadPlan of = plan(machine.topology, threads, NumaMode::distribute);
      const Placement placement(of);
      const int size = int(of.cpus.size());
      for (const std::int64_t count : {1, 96, 1000}) {
        for (int thread = 0; thread < size; ++thread) {
          const Range mine = split(count, size, thread);
          const Range home = placement.part(count, of.node[std::size_t(thread)]);
          EXPECT_TRUE(mine.begin >= home.begin && mine.end <= home.end) << machine.name << ", thread " << thread;
        }
      }
    }
  }
}

// Distinct cores before SMT siblings, siblings before shared CPUs; a thread's node is that of its CPUs.
TEST(Placement, ThreadsTakeDistinctCoresFirst) {
  for (const Machine& machine : machines()) {
    const std::vector<Core>& cores = machine.topology.cores;
    std::size_t hardware = 0;
    for (const Core& core : cores) hardware += core.cpus.size();
    for (const NumaMode mode : {NumaMode::off, NumaMode::distribute, NumaMode::mirror, NumaMode::interleave}) {
      for (int threads = 1; threads <= 40; ++threads) {
        SCOPED_TRACE(std::string(machine.name) + ", " + std::to_string(threads) + " threads, " + name(mode));
        const ThreadPlan of = plan(machine.topology, threads, mode);
        std::map<std::size_t, int> uses;  // of a core
        std::set<int> cpus;
        for (std::size_t i = 0; i < of.cpus.size(); ++i) {
          const auto core = std::find_if(cores.begin(), cores.end(), [&](const Core& c) {
            return std::includes(c.cpus.begin(), c.cpus.end(), of.cpus[i].begin(), of.cpus[i].end());
          });
          ASSERT_NE(core, cores.end());
          ++uses[std::size_t(core - cores.begin())];
          cpus.insert(of.cpus[i].front());
          if (of.nodes.size() > 1 && mode != NumaMode::interleave) {
            EXPECT_EQ(of.nodes[std::size_t(of.node[i])], machine.topology.nodes[std::size_t(core->node)].os_index);
          } else {
            EXPECT_EQ(of.node[i], 0);
          }
        }
        EXPECT_EQ(uses.size(), std::min(cores.size(), std::size_t(threads)));
        EXPECT_EQ(cpus.size(), std::min(hardware, std::size_t(threads)));
      }
    }
  }
}

TEST(Placement, BarrierGroupsAreCachesWithinNodes) {
  const Topology topology = synthetic("numa:2 l3:2 core:2 pu:1");
  const ThreadPlan off = plan(topology, 0, NumaMode::off);
  EXPECT_EQ(off.group, (std::vector{0, 0, 1, 1, 2, 2, 3, 3}));
  const ThreadPlan spread = plan(topology, 0, NumaMode::distribute);
  EXPECT_EQ(spread.node, (std::vector{0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(spread.group, (std::vector{0, 0, 1, 1, 2, 2, 3, 3}));
}

TEST(Placement, BothTeamsHaveOneMode) {
  const Topology topology = synthetic("numa:2 core:4 pu:1");
  const TeamPlans alone = plan_teams(topology, 0, 0, NumaMode::automatic, {}, GiB);
  EXPECT_EQ(alone.decode.mode, NumaMode::isolate);
  EXPECT_EQ(alone.batch.cpus, alone.decode.cpus);
  const TeamPlans more = plan_teams(topology, 2, 8, NumaMode::automatic, {}, GiB);  // 8 do not fit on one node
  EXPECT_EQ(more.batch.mode, NumaMode::distribute);
  EXPECT_EQ(more.decode.mode, NumaMode::distribute);
  EXPECT_EQ(more.decode.nodes, more.batch.nodes);
  const TeamPlans fewer = plan_teams(topology, 8, 2, NumaMode::automatic, {}, GiB);
  EXPECT_EQ(fewer.batch.mode, NumaMode::distribute);
  EXPECT_EQ(plan_teams(topology, 3, 0, NumaMode::off, {}, GiB).batch.cpus.size(), 3u);
}

TEST(Placement, BindingNeverFails) {
  Topology topology = synthetic("numa:4 core:2 pu:1");
  topology.nodes[3].os_index = 500;  // nodes that are not there
  const Buffer large(8 << 20, "test"), small(1000, "test");
  for (const NumaMode mode : {NumaMode::distribute, NumaMode::mirror, NumaMode::off}) {
    const Placement placement(plan(topology, 0, mode));
    for (int node = 0; node < placement.nodes(); ++node) {
      placement.bind(large, std::size_t(node) * 1000003, std::size_t(node + 1) * 1000003, node);
      placement.bind(large, 100, 200, node);  // less than a page
      placement.bind(small, 0, 1000, node);
    }
  }
  std::fill_n(large.as<char>(), large.bytes(), 1);
  EXPECT_EQ(large.as<char>()[large.bytes() - 1], 1);
}

TEST(BindMemory, NeverFails) {
  const pid_t child = ::fork();  // the policy stays with the thread
  ASSERT_GE(child, 0);
  if (child == 0) {
    ThreadPlan binding;
    bind_memory(binding);
    for (const int node : {0, 63, 64, 500}) {  // mostly nodes that are not there
      binding.nodes = {node};
      for (const NumaMode mode : {NumaMode::isolate, NumaMode::interleave, NumaMode::distribute}) {
        binding.mode = mode;
        bind_memory(binding);
      }
    }
    const std::vector<char> used(1 << 20, 1);
    ::_exit(used.back() == 1 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(CurrentNode, IsThatOfTheThreadInsideARun) {
  ThreadPlan of;
  of.cpus.resize(4);
  of.node = {0, 0, 1, 2};
  ThreadTeam team(of), flat(std::vector<std::vector<int>>(3));
  std::vector<int> seen(4, -1);
  for (int round = 0; round < 3; ++round) {
    team.run([&](int thread) { seen[std::size_t(thread)] = current_node(); });
    EXPECT_EQ(seen, of.node);
    flat.run([&](int) { EXPECT_EQ(current_node(), 0); });  // the same workers
    EXPECT_EQ(current_node(), 0);
  }
}

}  // namespace
}  // namespace fastkv
