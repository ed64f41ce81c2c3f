// What Linux control groups (v1 and v2) allow this process: CPU time and memory.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace fastkv {

inline constexpr std::uint64_t no_memory_limit = std::numeric_limits<std::uint64_t>::max();

/// The smallest CPU quota of this process's group and all groups above it, in CPUs; 0: none. `root` is put before
/// /proc and /sys, for tests.
double cgroup_cpu_quota(const std::string& root = "");

/// Bytes this process may still take before its group or one above it reaches its limit, file cache counted as free
/// (the kernel drops it first); no_memory_limit: no limit.
std::uint64_t cgroup_memory_headroom(const std::string& root = "");

}  // namespace fastkv
