// What processors and memory nodes this process may use, and which CPUs each thread gets: the only user of hwloc.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "fastkv/options.hpp"

namespace fastkv {

/// A physical core that this process may run on: its hardware threads (OS indices) and its memory node.
struct Core {
  std::vector<int> cpus;  ///< OS indices, ascending, only those in the affinity mask
  int node = 0;           ///< index into Topology::nodes
  int cache = 0;          ///< which last-level cache it uses; cores with the same number share one
};

struct MemoryNode {
  int os_index = 0;
  std::size_t bytes = 0;
};

/// Plain data, so that plans are pure functions and tests need no machine.
struct Topology {
  std::vector<Core> cores;        ///< in order of node, then first CPU
  std::vector<MemoryNode> nodes;  ///< at least one
  double cpu_quota = 0;           ///< cgroup v1/v2 quota in CPUs; 0: none
  int start_cpu = 0;              ///< CPU the process was running on, for NumaMode::isolate

  /// This machine, restricted to the affinity mask and the cgroup.
  static Topology detect();
  /// An hwloc synthetic description ("numa:2 core:4 pu:2"); every CPU allowed, no quota.
  static Topology synthetic(const std::string& description);
};

/// "0-3,8" for an ascending list.
std::string cpu_ranges(const std::vector<int>& cpus);

/// Where each thread runs and whose memory it works on.
struct ThreadPlan {
  std::vector<std::vector<int>> cpus;  ///< [threads] OS indices; empty inner: not pinned (NumaMode::numactl)
  NumaMode mode = NumaMode::off;       ///< as resolved: not automatic; off, isolate, … on one node too
  std::vector<int> nodes;    ///< memory nodes (OS indices) that memory is placed on; empty: left to the system
  std::vector<int> node;     ///< [threads] index into `nodes` of the thread's node; empty: all 0
  std::vector<int> group;    ///< [threads] threads of one node and last-level cache have one number; empty: all 0
  bool above_quota = false;  ///< more threads than the cgroup pays for: they take turns, waiting ones must not spin
  std::string reason;        ///< "2 threads: 2 physical cores in the affinity mask", printed by the tools
};

/// Chooses threads: `threads` 0 = min(physical cores in the mask, floor(quota)), at least 1; under isolate the cores of
/// the one node. More threads than cores take SMT siblings, then share CPUs. `cpus`: only these (options -C, -Cr; Error
/// invalid_option if none is allowed). Error invalid_option if `threads` is negative or absurd. Pure. On one memory
/// node the mode changes nothing but numactl's missing pins.
///
/// | mode       | thread i                                     | memory                                             |
/// |------------|----------------------------------------------|----------------------------------------------------|
/// | off        | core i                                       | where first touched                                |
/// | isolate    | core i of the node of start_cpu              | that node preferred                                |
/// | distribute | cores of all nodes in equal numbers, by node | every node holds what its threads read             |
/// | mirror     | as distribute                                | and a copy of all weights                          |
/// | interleave | core i                                       | pages spread over the nodes                        |
/// | numactl    | not pinned (with `cpus`: to all of them)     | as inherited                                       |
///
/// automatic is isolate if one node holds `bytes` (weights and cache) and has a core for each thread asked for, else
/// distribute. It is never mirror: that multiplies the memory, which only the user can judge.
ThreadPlan plan_threads(const Topology& topology, int threads, NumaMode numa, const std::vector<int>& cpus,
                        std::size_t bytes);

/// The two teams of an engine, under one mode.
struct TeamPlans {
  ThreadPlan decode, batch;  ///< generation, prompt
};
/// As plan_threads for `threads` and `threads_batch` (0: as `threads`); automatic looks at the larger count.
TeamPlans plan_teams(const Topology& topology, int threads, int threads_batch, NumaMode numa,
                     const std::vector<int>& cpus, std::size_t bytes);

}  // namespace fastkv
