// Decides how many threads run and where, from the topology and the options alone.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "core/check.hpp"
#include "runtime/topology.hpp"

namespace fastkv {
namespace {

constexpr int kMostThreads = 4096;

std::string plural(std::size_t count, const char* noun) { return concat(count, ' ', noun, count == 1 ? "" : "s"); }

/// All hardware threads of `cores`, ascending.
std::vector<int> cpus_of(const std::vector<Core>& cores) {
  std::vector<int> cpus;
  for (const Core& core : cores) cpus.insert(cpus.end(), core.cpus.begin(), core.cpus.end());
  std::sort(cpus.begin(), cpus.end());
  return cpus;
}

/// The cores that hold one of `cpus` (empty: all), each with those hardware threads only.
std::vector<Core> allowed_cores(const Topology& topology, const std::vector<int>& cpus) {
  if (cpus.empty()) return topology.cores;
  const std::set<int> wanted(cpus.begin(), cpus.end());
  std::vector<Core> cores;
  for (const Core& core : topology.cores) {
    Core kept{{}, core.node, core.cache};
    for (const int cpu : core.cpus) {
      if (wanted.count(cpu) > 0) kept.cpus.push_back(cpu);
    }
    if (!kept.cpus.empty()) cores.push_back(std::move(kept));
  }
  check(!cores.empty(), ErrorCode::invalid_option, "-C, -Cr: expected some of the allowed CPUs ",
        cpu_ranges(cpus_of(topology.cores)), ", found ", cpu_ranges({wanted.begin(), wanted.end()}));
  return cores;
}

std::vector<Core> cores_of_node(const std::vector<Core>& cores, int node) {
  std::vector<Core> result;
  std::copy_if(cores.begin(), cores.end(), std::back_inserter(result), [&](const Core& c) { return c.node == node; });
  return result;
}

/// Index of the node the process runs on, or of the first allowed core if it may not stay there.
int home_node(const std::vector<Core>& cores, int start_cpu) {
  for (const Core& core : cores) {
    if (std::find(core.cpus.begin(), core.cpus.end(), start_cpu) != core.cpus.end()) return core.node;
  }
  return cores.front().node;
}

/// A core of each node in turn until a node has no core left, so that any number of first ones is spread evenly.
std::vector<Core> round_robin(const std::vector<Core>& cores, const std::vector<int>& nodes) {
  std::vector<std::vector<Core>> by_node;
  for (const int node : nodes) by_node.push_back(cores_of_node(cores, node));
  std::vector<Core> order;
  for (std::size_t i = 0; order.size() < cores.size(); ++i) {
    for (const std::vector<Core>& of_node : by_node) {
      if (i < of_node.size()) order.push_back(of_node[i]);
    }
  }
  return order;
}

/// A core, or one of its hardware threads, for each thread: whole cores while there are enough; else single hardware
/// threads, first ones first, and from the start again when they run out.
std::vector<Core> assign(const std::vector<Core>& cores, int threads) {
  std::vector<Core> places;
  if (std::size_t(threads) <= cores.size()) {
    places = cores;
  } else {
    const std::size_t all = cpus_of(cores).size();
    for (std::size_t sibling = 0; places.size() < all; ++sibling) {
      for (const Core& core : cores) {
        if (sibling < core.cpus.size()) places.push_back({{core.cpus[sibling]}, core.node, core.cache});
      }
    }
  }
  std::vector<Core> result;
  for (std::size_t i = 0; i < std::size_t(threads); ++i) result.push_back(places[i % places.size()]);
  return result;
}

std::string gib(std::size_t bytes) {
  std::ostringstream text;
  text.precision(3);
  text << double(bytes) / double(std::size_t{1} << 30) << " GiB";
  return text.str();
}

std::string quota_text(double quota) {
  std::ostringstream text;
  text.precision(4);
  text << "cgroup quota " << quota << " CPUs";
  return text.str();
}

/// The first half of the reason: why so many threads.
std::string explain_count(int threads, bool asked, const std::vector<Core>& cores, double quota,
                          const std::string& where) {
  const std::string head = plural(std::size_t(threads), "thread") + ": ";
  const std::size_t hardware = cpus_of(cores).size();
  if (!asked) {
    const std::string found = concat(cores.size(), cores.size() == 1 ? " core" : " cores", where, " allowed");
    if (quota > 0 && quota < double(cores.size())) return concat(head, quota_text(quota), ", ", found);
    return concat(head, plural(cores.size(), "physical core"), where, " allowed");
  }
  std::string text = concat(head, "asked for; ", plural(cores.size(), "physical core"), where, " allowed");
  if (std::size_t(threads) > hardware) {
    text += concat(", threads share ", plural(hardware, "CPU"));
  } else if (std::size_t(threads) > cores.size()) {
    text += ", SMT siblings used";
  }
  if (quota > 0 && threads > quota) text += concat(", above the ", quota_text(quota));
  return text;
}

/// The mode meant by automatic, and why.
struct Choice {
  NumaMode mode;
  std::string why;
};
Choice choose_mode(const std::vector<Core>& cores, const MemoryNode& home, int home_index, int threads,
                   std::size_t bytes) {
  const std::size_t home_cores = cores_of_node(cores, home_index).size();
  if (std::size_t(threads) > home_cores) {
    return {NumaMode::distribute,
            concat("node ", home.os_index, " has ", plural(home_cores, "core"), " for the ", threads, " threads")};
  }
  const std::string needed = concat("weights and cache of at most ", gib(bytes));
  if (bytes <= home.bytes) return {NumaMode::isolate, concat("it holds the ", needed)};
  return {NumaMode::distribute, concat("node ", home.os_index, " does not hold the ", needed)};
}

/// The nodes of `cores`, ascending.
std::vector<int> nodes_of(const std::vector<Core>& cores) {
  std::set<int> used;
  for (const Core& core : cores) used.insert(core.node);
  return {used.begin(), used.end()};
}

}  // namespace

std::string cpu_ranges(const std::vector<int>& cpus) {
  std::string text;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    text += concat(text.empty() ? "" : ",", cpus[i]);
    if (last > i) text += concat('-', cpus[last]);
    i = last + 1;
  }
  return text;
}

ThreadPlan plan_threads(const Topology& topology, int threads, NumaMode numa, const std::vector<int>& cpus,
                        std::size_t bytes) {
  check(threads >= 0 && threads <= kMostThreads, ErrorCode::invalid_option, "-t ", threads, ": expected 1 to ",
        kMostThreads, ", or 0 to choose");
  std::vector<Core> cores = allowed_cores(topology, cpus);
  const std::vector<int> nodes = nodes_of(cores);
  const bool several = nodes.size() > 1;
  const int home = home_node(cores, topology.start_cpu);
  const MemoryNode& home_memory = topology.nodes[std::size_t(home)];

  Choice choice{numa, ""};
  if (numa == NumaMode::automatic) {
    choice = several ? choose_mode(cores, home_memory, home, threads, bytes) : Choice{NumaMode::off, ""};
  }

  ThreadPlan plan;
  plan.mode = choice.mode;
  std::string where = cpus.empty() ? "" : " of -C, -Cr", placement;
  const bool by_node = choice.mode == NumaMode::distribute || choice.mode == NumaMode::mirror;
  if (several && choice.mode == NumaMode::isolate) {
    cores = cores_of_node(cores, home);
    plan.nodes = {home_memory.os_index};
    where += concat(" of node ", home_memory.os_index);
    placement = "numa isolate";
  } else if (several && (by_node || choice.mode == NumaMode::interleave)) {
    for (const int node : nodes) plan.nodes.push_back(topology.nodes[std::size_t(node)].os_index);
    if (by_node) cores = round_robin(cores, nodes);
    placement = concat("numa ", name(choice.mode), " over ", nodes.size(), " nodes");
  } else if (choice.mode == NumaMode::numactl) {
    placement = "numa numactl: threads not pinned";
  } else if (choice.mode != NumaMode::off) {
    placement = concat("one memory node, --numa ", name(choice.mode), " changes nothing");
  }
  if (!choice.why.empty()) placement += concat(" (auto: ", choice.why, ")");

  const double quota = topology.cpu_quota;
  int count = threads;
  if (count == 0) {
    count = int(cores.size());
    if (quota > 0) count = std::clamp(int(std::min(quota, double(count))), 1, count);
  }
  plan.above_quota = quota > 0 && count > quota;
  if (choice.mode == NumaMode::numactl) {
    // Threads move freely within what numactl, or -C, left them.
    plan.cpus.assign(std::size_t(count), cpus.empty() ? std::vector<int>{} : cpus_of(cores));
  } else {
    std::map<std::pair<int, int>, int> groups;  // node and cache, to a number
    std::vector<Core> places = assign(cores, count);
    // Work is split by thread number: neighbours of one node get neighbouring work, and a node one part of it.
    if (by_node) std::stable_sort(places.begin(), places.end(), [](auto& a, auto& b) { return a.node < b.node; });
    for (const Core& place : places) {
      plan.cpus.push_back(place.cpus);
      const auto found = std::find(nodes.begin(), nodes.end(), place.node);
      plan.node.push_back(several && by_node ? int(found - nodes.begin()) : 0);
      plan.group.push_back(groups.emplace(std::pair(place.node, place.cache), int(groups.size())).first->second);
    }
  }
  plan.reason = explain_count(count, threads > 0, cores, quota, where);
  if (!placement.empty()) plan.reason += concat("; ", placement);
  return plan;
}

TeamPlans plan_teams(const Topology& topology, int threads, int threads_batch, NumaMode numa,
                     const std::vector<int>& cpus, std::size_t bytes) {
  const int batch = threads_batch > 0 || threads == 0 ? threads_batch : threads;
  TeamPlans plans{plan_threads(topology, threads, numa, cpus, bytes), plan_threads(topology, batch, numa, cpus, bytes)};
  // Both read the same memory: where the counts ask for different modes, the larger count decides.
  if (plans.decode.mode != plans.batch.mode) {
    const bool by_batch = batch > threads;
    ThreadPlan& smaller = by_batch ? plans.decode : plans.batch;
    smaller =
        plan_threads(topology, by_batch ? threads : batch, (by_batch ? plans.batch : plans.decode).mode, cpus, bytes);
  }
  return plans;
}

}  // namespace fastkv
