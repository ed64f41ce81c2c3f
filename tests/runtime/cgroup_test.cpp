// Quotas and memory limits of v1 and v2 groups, read from made-up /proc and /sys trees.
#include "runtime/cgroup.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace fastkv {
namespace {

namespace fs = std::filesystem;

class Cgroup : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = fs::temp_directory_path() / ("fastkv_cgroup_" + name + "_" + std::to_string(::getpid()));
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const fs::path file = root_ / path.substr(1);
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void v2(const std::string& group, const std::string& mount_root = "/") {
    write("/proc/self/cgroup", "0::" + group + "\n");
    write("/proc/self/mountinfo", "22 1 0:5 / /sys rw - sysfs sysfs rw\n30 22 0:27 " + mount_root +
                                      " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void v1(const std::string& group, const std::string& mount_root = "/") {
    write("/proc/self/cgroup",
          "9:name=systemd:/x\n5:cpuset:/wrong\n4:memory:" + group + "\n1:cpu,cpuacct:" + group + "\n0::/\n");
    write("/proc/self/mountinfo",
          "31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
          "32 31 0:29 " +
              mount_root +
              " /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
              "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
              "34 31 0:31 " +
              mount_root + " /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  }
  double quota() const { return cgroup_cpu_quota(root_.string()); }
  std::uint64_t headroom() const { return cgroup_memory_headroom(root_.string()); }

  fs::path root_;
};

TEST_F(Cgroup, NothingThere) {
  EXPECT_EQ(quota(), 0);
  EXPECT_EQ(headroom(), no_memory_limit);
}

TEST_F(Cgroup, V2TakesTheSmallestOnTheWayUp) {
  v2("/user.slice/job/step");
  write("/sys/fs/cgroup/user.slice/job/step/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), 0);
  write("/sys/fs/cgroup/user.slice/cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(quota(), 4);
  write("/sys/fs/cgroup/user.slice/job/cpu.max", "190000 100000\n");
  EXPECT_DOUBLE_EQ(quota(), 1.9);
  write("/sys/fs/cgroup/user.slice/job/step/cpu.max", "50000 25000\n");
  EXPECT_DOUBLE_EQ(quota(), 1.9);
}

TEST_F(Cgroup, V2Memory) {
  v2("/a/b");
  write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  write("/sys/fs/cgroup/a/b/memory.current", "1000\n");
  EXPECT_EQ(headroom(), no_memory_limit);
  write("/sys/fs/cgroup/a/memory.max", "10000\n");
  write("/sys/fs/cgroup/a/memory.current", "4000\n");
  EXPECT_EQ(headroom(), 6000u);
  write("/sys/fs/cgroup/a/memory.stat", "anon 500\nfile 3500\ninactive_file 1000\nactive_file 500\nslab 3\n");
  EXPECT_EQ(headroom(), 7500u);  // file cache goes first
  write("/sys/fs/cgroup/a/b/memory.max", "900\n");
  EXPECT_EQ(headroom(), 0u);  // already above: nothing, not a wrapped number
}

TEST_F(Cgroup, V1Quota) {
  v1("/docker/ab");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  write("/sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us", "-1\n");
  write("/sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), 0);
  write("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "350000\n");
  write("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(quota(), 3.5);
  write("/sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us", "50000\n");
  EXPECT_DOUBLE_EQ(quota(), 0.5);
}

TEST_F(Cgroup, V1Memory) {
  v1("/job");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none
  write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
  EXPECT_EQ(headroom(), no_memory_limit);
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "8000\n");
  write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "3000\n");
  write("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 9\ntotal_inactive_file 200\ntotal_active_file 300\n");
  EXPECT_EQ(headroom(), 5500u);
}

// A container sees its own group as the root of the mount, and may see its path from outside or as "/".
TEST_F(Cgroup, ContainerMounts) {
  for (const std::string path : {"/docker/ab", "/", "/elsewhere"}) {
    v2(path, "/docker/ab");
    write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    EXPECT_DOUBLE_EQ(quota(), 1.5) << path;
  }
  v2("/docker/ab/inner", "/docker/ab");
  write("/sys/fs/cgroup/inner/cpu.max", "100000 100000\n");
  EXPECT_DOUBLE_EQ(quota(), 1.0);
}

TEST_F(Cgroup, GarbageIsNoLimit) {
  v2("/a");
  for (const char* text : {"", "max", "x y", "100000 0", "-5 100000", "100000"}) {
    write("/sys/fs/cgroup/a/cpu.max", text);
    EXPECT_EQ(quota(), 0) << text;
    write("/sys/fs/cgroup/a/memory.max", text);
    EXPECT_EQ(headroom(), no_memory_limit) << text;
  }
  write("/proc/self/mountinfo", "short line\n - \n1 2 3 - cgroup2\n");
  EXPECT_EQ(quota(), 0);
}

}  // namespace
}  // namespace fastkv
