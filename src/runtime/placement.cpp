// Parts in proportion to threads, and the two system calls that place memory.
#include "runtime/placement.hpp"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <numeric>
#include <set>

#include "core/check.hpp"

namespace fastkv {
namespace {

/// A set of nodes as the kernel takes it.
struct NodeMask {
  static constexpr std::size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;
  explicit NodeMask(const std::vector<int>& nodes)
      : words(std::size_t(*std::max_element(nodes.begin(), nodes.end())) / kWordBits + 1) {
    for (const int node : nodes) words[std::size_t(node) / kWordBits] |= 1UL << (std::size_t(node) % kWordBits);
  }
  unsigned long bits() const { return words.size() * kWordBits + 1; }  // the kernel reads one less than it is told
  std::vector<unsigned long> words;
};

}  // namespace

Placement::Placement(const ThreadPlan& plan) {
  const bool split = plan.mode == NumaMode::distribute || plan.mode == NumaMode::mirror;
  if (!split || plan.nodes.size() < 2) return;
  mirror_ = plan.mode == NumaMode::mirror;
  os_index_ = plan.nodes;
  threads_.assign(plan.nodes.size(), 0);
  for (const int node : plan.node) ++threads_[std::size_t(node)];
}

std::vector<std::int64_t> Placement::parts(std::int64_t count) const {
  const std::int64_t all = std::accumulate(threads_.begin(), threads_.end(), std::int64_t{0});
  std::vector<std::int64_t> first{0};
  std::int64_t before = 0;
  for (const int threads : threads_) {
    before += threads;
    first.push_back(count * before / all);
  }
  return first;
}

Range Placement::part(std::int64_t count, int node) const {
  const std::vector<std::int64_t> first = parts(count);
  return {first[std::size_t(node)], first[std::size_t(node) + 1]};
}

std::vector<NodePlan> plan_nodes(const TeamPlans& plans, const MemoryPlan& memory, int heads) {
  const bool placed = plans.decode.mode == NumaMode::isolate || plans.decode.mode == NumaMode::distribute ||
                      plans.decode.mode == NumaMode::mirror;
  std::vector<NodePlan> nodes;
  const Placement placement(plans.decode);
  for (int i = 0; placed && i < int(plans.decode.nodes.size()); ++i) {
    NodePlan node;
    node.node = plans.decode.nodes[std::size_t(i)];
    std::set<int> cpus;
    const auto threads = [&](const ThreadPlan& plan) {
      int count = 0;
      for (std::size_t t = 0; t < plan.cpus.size(); ++t) {
        if (plan.node[t] != i) continue;
        cpus.insert(plan.cpus[t].begin(), plan.cpus[t].end());
        ++count;
      }
      return count;
    };
    node.threads = threads(plans.decode);
    node.threads_batch = threads(plans.batch);
    node.cpus = cpu_ranges({cpus.begin(), cpus.end()});
    const double share = double(node.threads) / double(plans.decode.cpus.size());
    const double share_batch = double(node.threads_batch) / double(plans.batch.cpus.size());
    // Heads lie one after another: the node's part of any number of rows per head.
    constexpr std::int64_t kRows = 1 << 20;
    const Range part = placement.part(heads * kRows, i);
    node.head_begin = int(part.begin / kRows);
    node.head_end = int((part.end + kRows - 1) / kRows);
    node.weights = std::size_t((placement.copies() > 1 ? 1.0 / placement.copies() : share) * double(memory.weights));
    node.cache = std::size_t(share * double(memory.cache));
    node.work = std::size_t(share_batch * double(memory.hidden + memory.layer_kv + memory.scratch));
    nodes.push_back(std::move(node));
  }
  return nodes;
}

std::string describe_placement(const Topology& topology, const ThreadPlan& plan) {
  if (topology.nodes.size() == 1) return "one memory node";
  std::string used;
  for (const int node : plan.nodes) used += concat(used.empty() ? "" : ", ", node);
  const std::string of = concat(topology.nodes.size(), " memory nodes, ");
  if (plan.nodes.size() == 1) return concat(of, "all on node ", used);
  switch (plan.mode) {
    case NumaMode::distribute:
      return concat(of, "weights and cache split over nodes ", used);
    case NumaMode::mirror:
      return concat(of, "weights on each of nodes ", used, ", cache split");
    case NumaMode::interleave:
      return concat(of, "pages in turn on nodes ", used);
    default:
      return concat(of, plan.mode == NumaMode::numactl ? "placed as inherited" : "placed where first touched");
  }
}

void Placement::bind(const Buffer& buffer, std::size_t begin, std::size_t end, int node) const {
  if (os_index_.empty() || !buffer.has_own_pages()) return;
  const auto page = std::uintptr_t(::sysconf(_SC_PAGESIZE));
  const auto base = reinterpret_cast<std::uintptr_t>(buffer.as<>());
  const std::uintptr_t first = (base + begin + page - 1) / page * page, last = (base + end) / page * page;
  if (first >= last) return;
  const NodeMask mask({os_index_[std::size_t(node)]});
  // Preferred and not bound: memory of another node is slow, running out of memory ends the process.
  ::syscall(SYS_mbind, first, last - first, MPOL_PREFERRED, mask.words.data(), mask.bits(), 0UL);
}

void bind_memory(const ThreadPlan& plan) {
  const bool interleave = plan.mode == NumaMode::interleave;
  if (plan.nodes.empty() || (!interleave && plan.mode != NumaMode::isolate)) return;
  const NodeMask mask(plan.nodes);
  ::syscall(SYS_set_mempolicy, interleave ? MPOL_INTERLEAVE : MPOL_PREFERRED, mask.words.data(), mask.bits());
}

}  // namespace fastkv
