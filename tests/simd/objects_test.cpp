// What the objects of simd/isa contain: the instructions that make a level what it is, and one exported symbol each.
//
// A baseline program crashes on an older CPU when the linker keeps an inline function from an ISA object, so these
// objects may define nothing that another could be merged with; and a kernel that silently fell back to a lower level
// would pass every numerical test.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "simd/isa.hpp"
#include "simd/support/kernel_test.hpp"

namespace fastkv::simd {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kInstrumented = true;
#else
constexpr bool kInstrumented = false;
#endif

class IsaObject : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    object = std::filesystem::path(FASTKV_BINARY_DIR) / "simd/CMakeFiles/fastkv_simd.dir/isa" /
             (std::string(name(GetParam())) + ".cpp.o");
    if (kInstrumented) GTEST_SKIP() << "sanitizers add symbols and calls of their own";
    if (!std::filesystem::exists(object)) GTEST_SKIP() << "no object " << object.string();
    for (const char* tool : {"nm", "objdump"}) {
      if (run(std::string("command -v ") + tool).empty()) GTEST_SKIP() << "binutils lack " << tool;
    }
  }
  static std::vector<std::string> run(const std::string& command) {
    std::vector<std::string> lines;
    FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
    if (!pipe) return lines;
    char buffer[4096];
    std::string line;
    while (std::fgets(buffer, sizeof buffer, pipe)) {
      line += buffer;
      if (line.back() != '\n') continue;
      line.pop_back();
      lines.push_back(line), line.clear();
    }
    pclose(pipe);
    return lines;
  }
  /// How many instructions match the pattern (an egrep over "mnemonic operands").
  int count(const std::string& pattern) const {
    const auto lines =
        run("objdump -d --no-show-raw-insn -M att '" + object.string() + "' | cut -f2- | grep -cE '" + pattern + "'");
    return lines.empty() ? -1 : std::stoi(lines[0]);
  }
  std::filesystem::path object;
};

TEST_P(IsaObject, HasTheInstructionsOfItsLevelAndNoneAbove) {
  const int ymm = count("%ymm"), zmm = count("%zmm"), mask = count("%k[0-7]");
  const int vex_dot = count("vpdpbusd .*%ymm"), evex_dot = count("vpdpbusd .*%zmm"),
            bf16_dot = count("vdpbf16ps .*%zmm"), tile_dot = count("tdpbf16ps");
  ASSERT_GT(count("ret"), 0);
  switch (GetParam()) {
    case Isa::scalar:
      EXPECT_EQ(ymm, 0);
      EXPECT_EQ(count("^v[a-z]"), 0) << "VEX-encoded instructions";
      EXPECT_GT(count("pmaddwd"), 0);
      break;
    case Isa::avx2:
      EXPECT_GT(count("vpmaddubsw .*%ymm"), 0);
      EXPECT_GT(count("vfmadd.*ps .*%ymm"), 0);
      EXPECT_EQ(vex_dot, 0);
      break;
    case Isa::avx2_vnni:
      EXPECT_GT(vex_dot, 0);
      EXPECT_EQ(count("vpmaddubsw"), 0);
      break;
    case Isa::avx512:
      EXPECT_GT(count("vpmaddubsw .*%zmm"), 0);
      EXPECT_EQ(evex_dot, 0);
      EXPECT_EQ(bf16_dot, 0);
      break;
    case Isa::avx512_vnni:
      EXPECT_GT(evex_dot, 0);
      EXPECT_EQ(bf16_dot, 0);
      break;
    case Isa::avx512_bf16:
      EXPECT_GT(evex_dot, 0);
      EXPECT_GT(bf16_dot, 0);
      EXPECT_EQ(tile_dot, 0);
      break;
    case Isa::amx_bf16:  // only what has a tile version; the rest is avx512_bf16's object
      EXPECT_GT(tile_dot, 0);
      EXPECT_GT(count("ldtilecfg"), 0);
      EXPECT_GT(count("tilerelease"), 0);
      return;
  }
  if (GetParam() < Isa::avx512) {
    EXPECT_EQ(zmm, 0);
    EXPECT_EQ(mask, 0) << "AVX-512 mask registers";
  } else {
    EXPECT_GT(count("vfmadd.*ps .*%zmm"), 0);
    EXPECT_GT(zmm, 0);
  }
}

TEST_P(IsaObject, ExportsItsTableAlone) {
  int tables = 0;
  for (const std::string& line : run("nm -C '" + object.string() + "'")) {
    std::smatch parts;
    if (!std::regex_match(line, parts, std::regex("^[0-9a-f ]{16} ([A-Za-z]) (.*)$"))) continue;
    const char kind = parts[1].str()[0];
    const std::string symbol = parts[2];
    EXPECT_EQ(std::string("WwVvu").find(kind), std::string::npos) << "weak symbol " << symbol;
    if (kind == 'U' || !std::isupper(static_cast<unsigned char>(kind))) continue;
    EXPECT_EQ(symbol.rfind("fastkv::simd::kTable", 0), 0u) << "exported symbol " << symbol;
    ++tables;
  }
  EXPECT_EQ(tables, 1);
}

FASTKV_EVERY_ISA(IsaObject);

}  // namespace
}  // namespace fastkv::simd
