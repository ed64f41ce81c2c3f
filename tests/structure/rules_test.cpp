// Rules of the code that a compiler does not check: no printing, no abort, one place for CUDA, files of readable size.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>

#include "structure/source_tree.hpp"

namespace fastkv::test {
namespace {

TEST(Rules, TheLibraryNeitherPrintsNorAborts) {
  const std::regex forbidden(
      "std::(cout|cerr|clog|terminate|exit|quick_exit|_Exit|abort|print)\\b|"
      "(^|[^\\w.>:])(::)?(printf|fprintf|vprintf|puts|fputs|putchar|perror|abort|exit|_exit|assert)\\s*\\(|"
      "\\bcassert\\b");
  for (const char* bad :
       {"  std::cerr << 1;", "  abort();", "if (x) printf(\"a\");", "assert(n > 0);", "#include <cassert>"})
    EXPECT_TRUE(std::regex_search(std::string(bad), forbidden)) << bad;
  for (const char* good : {"static_assert(a);", "std::snprintf(b, 3, \"\");", "x.exit(3)"})
    EXPECT_FALSE(std::regex_search(std::string(good), forbidden)) << good;
  for (const SourceFile& file : source_files({"include", "simd", "src"}))
    for (std::size_t i = 0; i < file.code.size(); ++i)
      EXPECT_FALSE(file.code[i].find_first_of("(:<") != std::string::npos && std::regex_search(file.code[i], forbidden))
          << file.path << ":" << i + 1 << ": " << file.lines[i];
}

TEST(Rules, CudaIsChosenInTheRegistryOnly) {
  for (const SourceFile& file : source_files({"include", "simd", "src", "tools", "bench"})) {
    if (file.path == "src/backend/registry.cpp" || starts_with(file.path, "src/backend/cuda/")) continue;
    static const std::regex conditional("^\\s*#\\s*(if|ifdef|ifndef|elif).*CUDA");
    for (const std::string& line : file.code)
      EXPECT_FALSE(line.find('#') != std::string::npos && std::regex_search(line, conditional))
          << file.path << ": " << line;
  }
}

/// Device code is what nvcc and the emulation both compile: no conditions on either, launches and PTX in one place
/// each.
TEST(Rules, DeviceCodeIsTheSameEverywhere) {
  static const std::regex conditional("^\\s*#\\s*(if|ifdef|ifndef|elif)"), assembly("\\basm\\b");
  std::size_t kernels = 0;
  for (const SourceFile& file : source_files({"src/backend/cuda"})) {
    for (const std::string& line : file.code) {
      kernels += line.find("__global__") != std::string::npos;
      EXPECT_FALSE(std::regex_search(line, conditional)) << file.path << ": " << line;
      EXPECT_TRUE(line.find("<<<") == std::string::npos || file.path == "src/backend/cuda/kernels/launch.cuh")
          << file.path << ": " << line;
      EXPECT_TRUE(!std::regex_search(line, assembly) || file.path == "src/backend/cuda/kernels/tensor_core.cuh")
          << file.path << ": " << line;
    }
  }
  EXPECT_GT(kernels, 0u) << "no kernels were found";
}

TEST(Rules, FilesStayReadable) {
  // A file over 500 lines, with the reason.
  const std::map<std::string, std::string> reasons = {};
  std::vector<std::size_t> sizes;
  for (const SourceFile& file : source_files({"include", "simd", "src", "tools", "bench", "tests"})) {
    sizes.push_back(file.lines.size());
    EXPECT_TRUE(file.lines.size() <= 500 || reasons.count(file.path))
        << file.path << " has " << file.lines.size() << " lines";
    ASSERT_FALSE(file.lines.empty()) << file.path;
    EXPECT_TRUE(starts_with(file.lines[0], "// ")) << file.path << " does not begin by saying what it is";
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      // Written in two parts so that this file passes.
      for (const char* mark : {"TO"
                               "DO",
                               "FIX"
                               "ME"})
        EXPECT_EQ(file.lines[i].find(mark), std::string::npos) << file.path << ":" << i + 1;
    }
  }
  std::sort(sizes.begin(), sizes.end());
  EXPECT_LE(sizes[sizes.size() / 2], 200u) << "the median file has grown";
}

/// The folders of src/ in the README's map: all of them, the stations of the data in the data's order.
TEST(Rules, TheReadmeMapsTheTree) {
  const std::filesystem::path root = FASTKV_SOURCE_DIR;
  if (!std::filesystem::exists(root / "README.md")) GTEST_SKIP() << "no README.md yet";
  std::ifstream in(root / "README.md");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const std::size_t map = text.find("src/");
  ASSERT_NE(map, std::string::npos);
  for (const auto& entry : std::filesystem::directory_iterator(root / "src")) {
    if (!entry.is_directory()) continue;
    EXPECT_NE(text.find(entry.path().filename().string() + "/", map), std::string::npos) << entry.path();
  }
  for (const char* folder : {"simd/", "tests/", "tools/", "include/"})
    EXPECT_NE(text.find(folder), std::string::npos) << folder;
  std::size_t at = map;
  for (const char* station : {"text/", "model/", "prefill/", "cache/", "decode/"}) {
    at = text.find(station, at);
    ASSERT_NE(at, std::string::npos) << station << " is missing or out of the data's order";
  }
}

}  // namespace
}  // namespace fastkv::test
