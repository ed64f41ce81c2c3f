// Reads the machine through hwloc and the control groups.
#include "runtime/topology.hpp"

#include <hwloc.h>
#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <tuple>

#include "core/check.hpp"
#include "runtime/cgroup.hpp"

namespace fastkv {
namespace {

struct Destroy {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Hwloc = std::unique_ptr<hwloc_topology, Destroy>;

Hwloc init() {
  hwloc_topology_t raw = nullptr;
  check(hwloc_topology_init(&raw) == 0, ErrorCode::internal, "hwloc: cannot start");
  return Hwloc(raw);
}

/// OS indices in a set, ascending.
std::vector<int> cpus_of(hwloc_const_bitmap_t set) {
  std::vector<int> cpus;
  for (int cpu = hwloc_bitmap_first(set); cpu >= 0; cpu = hwloc_bitmap_next(set, cpu)) cpus.push_back(cpu);
  return cpus;
}

/// The memory node nearest to a core: the one with the lowest OS index among those that list its CPUs (where fast and
/// slow memory share CPUs, the ordinary memory comes first).
hwloc_obj_t node_of(hwloc_topology_t topology, hwloc_obj_t core) {
  hwloc_obj_t best = nullptr;
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    const bool near = hwloc_bitmap_intersects(node->cpuset, core->cpuset) != 0;
    if (near && (best == nullptr || node->os_index < best->os_index)) best = node;
  }
  return best;
}

/// Cores and the nodes that they use; memory without processors is no place to run and is left out.
Topology convert(hwloc_topology_t topology) {
  Topology result;
  std::map<int, std::size_t> bytes;                           // by node's OS index
  std::vector<std::tuple<int, std::vector<int>, int>> found;  // node's OS index, CPUs, last-level cache
  // A system that does not tell cores from hardware threads has processing units only.
  const auto type = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  for (hwloc_obj_t core = nullptr; (core = hwloc_get_next_obj_by_type(topology, type, core)) != nullptr;) {
    std::vector<int> cpus = cpus_of(core->cpuset);
    if (cpus.empty()) continue;
    const hwloc_obj_t node = node_of(topology, core);
    const int os_index = node == nullptr ? 0 : int(node->os_index);
    bytes[os_index] = node == nullptr ? 0 : std::size_t(node->attr->numanode.local_memory);
    const hwloc_obj_t cache = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_L3CACHE, core);
    found.emplace_back(os_index, std::move(cpus), cache == nullptr ? 0 : int(cache->logical_index));
  }
  check(!found.empty(), ErrorCode::internal, "hwloc: expected at least one core, found none");
  std::sort(found.begin(), found.end());  // cores share no CPU, so the first CPU decides within a node
  for (const auto& [os_index, size] : bytes) result.nodes.push_back({os_index, size});
  for (auto& [os_index, cpus, cache] : found) {
    result.cores.push_back({std::move(cpus), int(std::distance(bytes.begin(), bytes.find(os_index))), cache});
  }
  return result;
}

}  // namespace

Topology Topology::detect() {
  const Hwloc hwloc = init();
  // Without RESTRICT_TO_CPUBINDING, which counts only together with IS_THISSYSTEM, hwloc lists every CPU of the machine
  // under taskset. Threads of the application keep their masks.
  constexpr unsigned long flags = HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM | HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING |
                                  HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING;
  check(hwloc_topology_set_flags(hwloc.get(), flags) == 0 && hwloc_topology_load(hwloc.get()) == 0, ErrorCode::internal,
        "hwloc: cannot read this machine's topology");
  Topology topology = convert(hwloc.get());
  topology.cpu_quota = cgroup_cpu_quota();
  topology.start_cpu = std::max(0, ::sched_getcpu());
  return topology;
}

Topology Topology::synthetic(const std::string& description) {
  const Hwloc hwloc = init();
  check(hwloc_topology_set_synthetic(hwloc.get(), description.c_str()) == 0 && hwloc_topology_load(hwloc.get()) == 0,
        ErrorCode::bad_input, "expected an hwloc synthetic topology, found \"", description, "\"");
  Topology topology = convert(hwloc.get());
  topology.start_cpu = topology.cores.front().cpus.front();
  return topology;
}

}  // namespace fastkv
