// Which memory node holds each part of the weights and the cache, and how memory gets there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fastkv/stats.hpp"
#include "runtime/memory.hpp"
#include "runtime/parallel.hpp"
#include "runtime/topology.hpp"

namespace fastkv {

/// Splits shared data into one contiguous part per memory node, in proportion to the threads that compute there: the
/// parts that split() and SharedWork give to those threads, whose numbers ascend by node. Where nothing is split (one
/// node; modes other than distribute and mirror) there is one part, and binding does nothing.
class Placement {
 public:
  Placement() = default;
  /// For the threads of `plan`: those of generation, whose speed is that of memory.
  explicit Placement(const ThreadPlan& plan);

  int nodes() const { return int(threads_.size()); }    ///< parts; node i here is ThreadPlan::nodes[i]
  int copies() const { return mirror_ ? nodes() : 1; }  ///< of the packed weights
  /// [nodes + 1] the first of `count` items (panels of a matrix, stored heads) of each node, then `count`.
  std::vector<std::int64_t> parts(std::int64_t count) const;
  /// Node `node`'s items among `count`.
  Range part(std::int64_t count, int node) const;

  /// Asks for bytes [begin, end) of `buffer`, in whole pages, to come from `node`. A hint: refusals (containers) leave
  /// the pages where they are first touched; heap buffers (below 1 MiB) are left alone.
  void bind(const Buffer& buffer, std::size_t begin, std::size_t end, int node) const;

 private:
  std::vector<int> threads_ = {1};  ///< [nodes]
  std::vector<int> os_index_;       ///< [nodes]; empty: one part, not bound
  bool mirror_ = false;
};

/// "one memory node", or what is placed where, in a few words.
std::string describe_placement(const Topology& topology, const ThreadPlan& plan);

/// What each node in use gets of `memory` and `heads` key/value heads; empty where nothing is placed on single nodes.
std::vector<NodePlan> plan_nodes(const TeamPlans& plans, const MemoryPlan& memory, int heads);

/// Makes pages that the calling thread touches first come from `plan.nodes` under isolate (preferred) and interleave
/// (in turn) from now on. Threads started later inherit that, running ones must call it too. Does nothing in other
/// modes and where the kernel refuses (containers).
void bind_memory(const ThreadPlan& plan);

}  // namespace fastkv
