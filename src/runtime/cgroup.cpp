// Finds the group of this process in /proc and reads the limits of that group and of every group above it.
#include "runtime/cgroup.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

namespace fastkv {
namespace {

/// A comma-separated list holds `item`.
bool lists(const std::string& list, const std::string& item) {
  std::istringstream in(list);
  for (std::string found; std::getline(in, found, ',');) {
    if (found == item) return true;
  }
  return false;
}

/// Path of this process's group in the hierarchy of `controller` (empty: v2), as /proc/self/cgroup gives it.
std::optional<std::string> group_path(const std::string& root, const std::string& controller) {
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {  // "4:memory:/docker/ab" or, v2, "0::/user.slice"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : lists(controllers, controller)) return line.substr(second + 1);
  }
  return std::nullopt;
}

/// Directories of this process's group and of the groups above it, innermost first, as far as they can be seen here.
std::vector<std::string> group_directories(const std::string& root, const std::string& controller) {
  std::vector<std::string> directories;
  const std::optional<std::string> path = group_path(root, controller);
  if (!path) return directories;
  std::ifstream in(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    // "36 35 98:0 <root of the mount> <mount point> options … - <type> <source> <options of the file system>"
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream head(line.substr(0, dash)), tail(line.substr(dash + 3));
    std::string skipped, mount_root, mount_point, type, source, options;
    head >> skipped >> skipped >> skipped >> mount_root >> mount_point;
    tail >> type >> source >> options;
    if (controller.empty() ? type != "cgroup2" : type != "cgroup" || !lists(options, controller)) continue;
    // In a container the mount shows only a part of the hierarchy: the path is relative to that part.
    std::string below = *path;
    if (mount_root != "/") {
      const bool inside = below == mount_root || below.rfind(mount_root + "/", 0) == 0;
      below = inside ? below.substr(mount_root.size()) : "";
    }
    for (;;) {
      while (!below.empty() && below.back() == '/') below.pop_back();
      directories.push_back(root + mount_point + below);
      if (below.empty()) return directories;
      below.resize(below.rfind('/'));
    }
  }
  return directories;
}

/// First word of a file; empty when there is none.
std::string first_word(const std::string& file) {
  std::ifstream in(file);
  std::string word;
  in >> word;
  return word;
}

std::optional<std::uint64_t> read_number(const std::string& file) {
  std::ifstream in(file);
  std::uint64_t value;
  if (in >> value) return value;
  return std::nullopt;  // absent, or "max"
}

/// Bytes of file cache charged to a group; v1 counts the groups below it only under "total_" names.
std::uint64_t file_cache(const std::string& directory, bool v1) {
  const std::string prefix = v1 ? "total_" : "";
  std::ifstream in(directory + "/memory.stat");
  std::uint64_t sum = 0, value;
  for (std::string key; in >> key >> value;) {
    if (key == prefix + "inactive_file" || key == prefix + "active_file") sum += value;
  }
  return sum;
}

void keep_smaller(double& quota, double found) {
  if (found > 0 && (quota == 0 || found < quota)) quota = found;
}

}  // namespace

double cgroup_cpu_quota(const std::string& root) {
  double quota = 0;
  for (const std::string& directory : group_directories(root, "")) {
    std::ifstream in(directory + "/cpu.max");  // "150000 100000" or "max 100000"
    double time, period;
    if (in >> time >> period && period > 0) keep_smaller(quota, time / period);
  }
  for (const std::string& directory : group_directories(root, "cpu")) {
    const std::string time = first_word(directory + "/cpu.cfs_quota_us");  // "-1": none
    const std::optional<std::uint64_t> period = read_number(directory + "/cpu.cfs_period_us");
    if (time.empty() || time[0] == '-' || !period || *period == 0) continue;
    keep_smaller(quota, std::atof(time.c_str()) / double(*period));
  }
  return quota;
}

std::uint64_t cgroup_memory_headroom(const std::string& root) {
  std::uint64_t headroom = no_memory_limit;
  const auto visit = [&](const std::string& controller, const char* limit_file, const char* usage_file) {
    for (const std::string& directory : group_directories(root, controller)) {
      const std::optional<std::uint64_t> limit = read_number(directory + limit_file);
      const std::optional<std::uint64_t> usage = read_number(directory + usage_file);
      // v1 writes "no limit" as the largest page-aligned signed number.
      if (!limit || !usage || *limit >= std::uint64_t{1} << 62) continue;
      const std::uint64_t held = *usage - std::min(*usage, file_cache(directory, !controller.empty()));
      headroom = std::min(headroom, *limit - std::min(*limit, held));
    }
  };
  visit("", "/memory.max", "/memory.current");
  visit("memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes");
  return headroom;
}

}  // namespace fastkv
