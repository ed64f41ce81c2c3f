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

/// CPUs (OS indices) of each thread, and the memory nodes its allocations come from.
struct ThreadPlan {
  std::vector<std::vector<int>> cpus;  ///< [threads]; empty inner: not pinned (NumaMode::numactl)
  std::vector<int> nodes;              ///< memory nodes (OS indices) to bind to; empty: default policy
  bool interleave = false;             ///< spread pages over `nodes`
  std::string reason;                  ///< "2 threads: 2 physical cores in the affinity mask", printed by the tools
};

/// Chooses threads: `threads` 0 = min(physical cores in the mask, floor(quota)), at least 1; under isolate the cores of
/// the one node. More threads than cores take SMT siblings, then share CPUs. `cpus`: only these (options -C, -Cr; Error
/// invalid_option if none is allowed). `bytes`: weights + cache, for NumaMode::automatic (isolate if the node holds
/// them and has a core for each thread asked for, else distribute; one node: nothing). Error invalid_option if
/// `threads` is negative or absurd. Pure.
///
/// | mode       | thread i                                     | memory                        |
/// |------------|----------------------------------------------|-------------------------------|
/// | off        | core i                                       | where first touched           |
/// | isolate    | core i of the node of start_cpu              | that node preferred           |
/// | distribute | next core of node i % nodes                  | where first touched           |
/// | interleave | core i                                       | pages spread over the nodes   |
/// | numactl    | not pinned (with `cpus`: to all of them)     | as inherited                  |
ThreadPlan plan_threads(const Topology& topology, int threads, NumaMode numa, const std::vector<int>& cpus,
                        std::size_t bytes);

/// Makes pages that the calling thread touches first come from `plan.nodes` (preferred, or in turn with `interleave`)
/// from now on. Threads started later inherit that, running ones must call it too. Does nothing on one node or where
/// the kernel refuses (containers).
void bind_memory(const ThreadPlan& plan);

}  // namespace fastkv
