// Buffers are aligned, zeroed and refused politely; memory figures are plausible.
#include "runtime/memory.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "fastkv/error.hpp"

namespace fastkv {
namespace {

constexpr std::size_t MiB = std::size_t{1} << 20;

std::uintptr_t address(const Buffer& buffer) { return reinterpret_cast<std::uintptr_t>(buffer.as<char>()); }

/// The VmFlags line of the mapping that holds `at`.
std::string vm_flags(std::uintptr_t at) {
  std::ifstream in("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    unsigned long begin, end;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) inside = begin <= at && at < end;
    if (inside && line.rfind("VmFlags:", 0) == 0) return line + " ";
  }
  return "";
}

TEST(Buffer, IsAlignedAndZeroAtEverySize) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65}, MiB - 1, MiB,
                                  MiB + 1, 2 * MiB - 1, 2 * MiB, 2 * MiB + 1, 5 * MiB + 4097, 17 * MiB}) {
    const Buffer buffer(bytes, "test");
    EXPECT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(address(buffer) % (bytes > 16 * MiB ? 2 * MiB : bytes >= MiB / 4 ? 4096 : 64), 0u) << bytes;
    char* data = buffer.as<char>();
    for (std::size_t i = 0; i<bytes; i += bytes> MiB ? 511 : 1) ASSERT_EQ(data[i], 0) << bytes << ' ' << i;
    data[0] = data[bytes - 1] = 1;  // writable to the end
  }
}

TEST(Buffer, ZeroAgainAfterReuse) {
  for (int round = 0; round < 20; ++round) {
    const Buffer buffer(1000, "test");
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(buffer.as<char>()[i], 0);
    std::fill_n(buffer.as<char>(), 1000, char(-1));
  }
}

// A huge page may span neighbours: giving one back must leave the others, and new ones start with zeros.
TEST(Buffer, NeighboursAreIndependent) {
  constexpr std::size_t kBytes = 3 * MiB / 2;
  std::vector<Buffer> buffers;
  for (int i = 0; i < 100; ++i) {  // more than one shared mapping
    buffers.emplace_back(kBytes, "test");
    std::memset(buffers.back().as<char>(), i + 1, kBytes);
  }
  int neighbours = 0;
  for (std::size_t i = 1; i < buffers.size(); ++i)
    neighbours += address(buffers[i]) == address(buffers[i - 1]) + kBytes;
  EXPECT_GE(neighbours, 90);
  for (std::size_t i = 0; i < buffers.size(); i += 2) {
    buffers[i] = Buffer(kBytes, "test");
    for (std::size_t b = 0; b < kBytes; b += 4096) ASSERT_EQ(buffers[i].as<char>()[b], 0) << i;
  }
  for (std::size_t i = 1; i < buffers.size(); i += 2)
    for (std::size_t b = 0; b < kBytes; b += 4096) ASSERT_EQ(buffers[i].as<char>()[b], char(i + 1)) << i;
}

TEST(Buffer, EmptyHoldsNothing) {
  const Buffer none, zero(0, "test");
  EXPECT_FALSE(none);
  EXPECT_FALSE(zero);
  EXPECT_EQ(zero.as<char>(), nullptr);
}

TEST(Buffer, MovesWithoutCopying) {
  Buffer small(100, "small"), large(3 * MiB, "large");
  const std::uintptr_t small_at = address(small), large_at = address(large);
  Buffer moved(std::move(large));
  EXPECT_EQ(address(moved), large_at);
  EXPECT_FALSE(large);  // NOLINT: moved-from is empty by contract
  moved = std::move(small);
  EXPECT_EQ(address(moved), small_at);
  EXPECT_EQ(moved.bytes(), 100u);
}

TEST(Buffer, LargeOnesAskForHugePagesUnlessTold) {
  const Buffer automatic(4 * MiB, "test"), thp(4 * MiB, "test", HugePages::thp), off(4 * MiB, "test", HugePages::off);
  if (vm_flags(address(automatic)).empty()) GTEST_SKIP() << "no VmFlags in /proc/self/smaps";
  if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) GTEST_SKIP() << "no transparent huge pages";
  EXPECT_NE(vm_flags(address(automatic)).find(" hg "), std::string::npos);
  EXPECT_NE(vm_flags(address(thp)).find(" hg "), std::string::npos);
  EXPECT_NE(vm_flags(address(off)).find(" nh "), std::string::npos);
}

TEST(Buffer, HugePagesAreOfferedUnlessTheKernelSaysNever) {
  const std::filesystem::path root =
      std::filesystem::temp_directory_path() / ("fastkv_thp_" + std::to_string(::getpid()));
  const std::filesystem::path folder = root / "sys/kernel/mm/transparent_hugepage";
  std::filesystem::create_directories(folder);
  EXPECT_FALSE(huge_pages_offered(root.string()));  // a kernel without them
  for (const auto& [text, offered] : {std::pair{"[always] madvise never", true},
                                      {"always [madvise] never", true},
                                      {"always madvise [never]", false}}) {
    std::ofstream(folder / "enabled") << text << '\n';
    EXPECT_EQ(huge_pages_offered(root.string()), offered) << text;
  }
  std::filesystem::remove_all(root);
}

TEST(Buffer, RefusalNamesWhatAndSize) {
  for (const std::size_t bytes : {std::size_t{1} << 50, std::size_t(-1), std::size_t(-1) / 2}) {
    try {
      const Buffer buffer(bytes, "KV cache");
      FAIL() << "expected a refusal of " << bytes << " bytes";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
      const std::string what = error.what();
      EXPECT_EQ(what.rfind("KV cache: cannot allocate ", 0), 0u) << what;
      EXPECT_NE(what.find(" GiB"), std::string::npos) << what;
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    }
  }
}

TEST(Array, CountsElementsAndCatchesOverflow) {
  const Array<double> array(1000, "test");
  EXPECT_EQ(array.size(), 1000u);
  EXPECT_EQ(array.bytes(), 8000u);
  array[999] = 2.5;
  EXPECT_EQ(array.data()[999], 2.5);
  EXPECT_THROW(Array<double>(std::size_t(-1) / 8 + 2, "test"), Error);  // 8 bytes modulo 2^64
}

TEST(Memory, PeakFollowsUse) {
  const std::size_t before = peak_rss_bytes();
  EXPECT_GT(before, MiB);
  const Buffer buffer(64 * MiB, "test");
  for (std::size_t i = 0; i < buffer.bytes(); i += 4096) buffer.as<char>()[i] = 1;
  EXPECT_GE(peak_rss_bytes(), 64 * MiB);
  EXPECT_GE(peak_rss_bytes(), before);
}

TEST(Memory, AvailableIsBelowTheMachine) {
  const auto machine = std::size_t(::sysconf(_SC_PHYS_PAGES)) * std::size_t(::sysconf(_SC_PAGESIZE));
  EXPECT_GT(available_memory_bytes(), 16 * MiB);
  EXPECT_LE(available_memory_bytes(), machine);
}

TEST(Memory, AvailableKeepsTheAddressSpaceLimit) {
  const pid_t child = ::fork();  // a limit cannot be taken back
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const std::size_t used = pages * std::size_t(::sysconf(_SC_PAGESIZE));
    const rlimit limit{used + 100 * MiB, used + 100 * MiB};
    ::setrlimit(RLIMIT_AS, &limit);
    const std::size_t available = available_memory_bytes();
    ::_exit(available > 50 * MiB && available <= 100 * MiB ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace fastkv
