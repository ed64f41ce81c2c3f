// Names, detection and choice of instruction-set levels.
#include "simd/isa.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <set>
#include <sstream>

#include "simd/kernels.hpp"
#include "simd/support/kernel_test.hpp"

namespace fastkv::simd {
namespace {

TEST(IsaNames, EveryLevelHasOneAndReadsBack) {
  std::set<std::string> names;
  for (const Isa isa : kIsas) {
    Isa back = isa == Isa::scalar ? Isa::avx2 : Isa::scalar;
    EXPECT_TRUE(from_name(name(isa), back));
    EXPECT_EQ(back, isa);
    names.insert(name(isa));
  }
  EXPECT_EQ(names,
            (std::set<std::string>{"scalar", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx_bf16"}));
  Isa untouched = Isa::avx2;
  for (const char* wrong : {"", "avx", "AVX2", "avx512_", "avx512_vnni "}) EXPECT_FALSE(from_name(wrong, untouched));
  EXPECT_EQ(untouched, Isa::avx2);
}

/// The kernel lists what CPU and operating system can do; it is a witness independent of CPUID.
TEST(IsaDetection, AgreesWithProcCpuinfo) {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line);
    for (std::string word; words >> word;) flags.insert(word);
    break;
  }
  if (flags.empty()) GTEST_SKIP() << "no flags in /proc/cpuinfo";
  const auto has = [&](std::initializer_list<const char*> wanted) {
    for (const char* flag : wanted) {
      if (!flags.count(flag)) return false;
    }
    return true;
  };
  const bool avx2 = has({"avx2", "fma", "f16c", "bmi2"});
  const bool avx512 = avx2 && has({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"});
  EXPECT_TRUE(supported(Isa::scalar));
  EXPECT_EQ(supported(Isa::avx2), avx2);
  EXPECT_EQ(supported(Isa::avx2_vnni), avx2 && has({"avx_vnni"}));
  EXPECT_EQ(supported(Isa::avx512), avx512);
  EXPECT_EQ(supported(Isa::avx512_vnni), avx512 && has({"avx512_vnni"}));
  EXPECT_EQ(supported(Isa::avx512_bf16), avx512 && has({"avx512_vnni", "avx512_bf16"}));
  const bool amx = supported(Isa::amx_bf16);
  constexpr int kGetPermission = 0x1022;  // ARCH_GET_XCOMP_PERM
  std::uint64_t permitted = 0;
  const bool tiles = syscall(SYS_arch_prctl, kGetPermission, &permitted) == 0 && (permitted >> 18 & 1);
  EXPECT_EQ(amx, avx512 && has({"avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"}) && tiles);
}

TEST(IsaDetection, BestIsTheHighestSupported) {
  EXPECT_TRUE(supported(best_isa()));
  for (const Isa isa : kIsas) {
    if (isa > best_isa()) {
      EXPECT_FALSE(supported(isa)) << name(isa);
    }
  }
}

class ChooseIsa : public testing::Test {
 protected:
  void SetUp() override { unsetenv("FASTKV_ISA"); }
  void TearDown() override { unsetenv("FASTKV_ISA"); }
  Isa isa = Isa::scalar;
  char message[256] = "";
};

TEST_F(ChooseIsa, DefaultsToTheBest) {
  ASSERT_TRUE(choose_isa(nullptr, isa, message)) << message;
  EXPECT_EQ(isa, best_isa());
}

TEST_F(ChooseIsa, TheEnvironmentForcesALevelAndTheArgumentWins) {
  setenv("FASTKV_ISA", "scalar", 1);
  ASSERT_TRUE(choose_isa(nullptr, isa, message)) << message;
  EXPECT_EQ(isa, Isa::scalar);
  ASSERT_TRUE(choose_isa(name(best_isa()), isa, message)) << message;
  EXPECT_EQ(isa, best_isa());
}

TEST_F(ChooseIsa, AnEmptyVariableIsNone) {
  setenv("FASTKV_ISA", "", 1);
  ASSERT_TRUE(choose_isa(nullptr, isa, message)) << message;
  EXPECT_EQ(isa, best_isa());
}

TEST_F(ChooseIsa, AnUnknownNameIsAnErrorThatListsTheLevels) {
  setenv("FASTKV_ISA", "avx9000", 1);
  EXPECT_FALSE(choose_isa(nullptr, isa, message));
  const std::string text = message;
  EXPECT_NE(text.find("avx9000"), std::string::npos) << text;
  EXPECT_NE(text.find("FASTKV_ISA"), std::string::npos) << text;
  for (const Isa each : kIsas) {
    if (supported(each)) {
      EXPECT_NE(text.find(name(each)), std::string::npos) << text;
    }
  }
}

TEST_F(ChooseIsa, ALongNameWithControlCharactersStaysOneShortLine) {
  const std::string wrong = "x\n\t" + std::string(5000, 'y');
  EXPECT_FALSE(choose_isa(wrong.c_str(), isa, message));
  const std::string text = message;
  EXPECT_LT(text.size(), 256u);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_NE(text.find(name(best_isa())), std::string::npos) << text;
}

TEST_F(ChooseIsa, ALevelThatThisCpuLacksIsRefused) {
  for (const Isa each : kIsas) {
    if (supported(each)) continue;
    EXPECT_FALSE(choose_isa(name(each), isa, message));
    EXPECT_NE(std::string(message).find("cannot run"), std::string::npos) << message;
    return;
  }
  GTEST_SKIP() << "this CPU can run every level";
}

class Tables : public testing::TestWithParam<Isa> {};

TEST_P(Tables, ReportsItsOwnLevelAndIsComplete) {
  const KernelTable& table = kernels(GetParam());  // reading a table needs no instruction of its level
  EXPECT_EQ(table.isa, GetParam());
  // Every entry behind `isa` is a function pointer; none may be null.
  static_assert(sizeof(KernelTable) % sizeof(void*) == 0);
  const void* entries[sizeof(KernelTable) / sizeof(void*)];
  std::memcpy(entries, static_cast<const void*>(&table), sizeof table);
  for (std::size_t i = 1; i < std::size(entries); ++i) EXPECT_NE(entries[i], nullptr) << "entry " << i;
}
FASTKV_EVERY_ISA(Tables);

}  // namespace
}  // namespace fastkv::simd
