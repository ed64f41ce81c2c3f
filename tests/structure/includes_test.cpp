// Includes point one way, and each outside library has one owner (the table "Who may include whom" of the design).
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>

#include "structure/source_tree.hpp"

namespace fastkv::test {
namespace {

struct Rule {
  std::string folder;                ///< of the including file; the longest match counts
  std::vector<std::string> allowed;  ///< prefixes of quoted includes, the folder itself besides
};

/// "fastkv/" is the public interface, types of the standard library only: every part of src/ may use it.
const std::vector<Rule> kRules = {
    {"include/fastkv/", {"fastkv/"}},
    {"simd/", {"simd/"}},
    {"src/core/", {"core/", "fastkv/", "simd/"}},
    {"src/runtime/", {"runtime/", "core/", "fastkv/"}},
    {"src/text/", {"text/", "core/", "fastkv/"}},
    {"src/model/", {"model/", "core/", "runtime/", "fastkv/"}},
    {"src/backend/backend.hpp", {"core/", "fastkv/"}},
    {"src/backend/registry.cpp", {"backend/", "core/", "fastkv/"}},
    {"src/backend/cpu/", {"backend/backend.hpp", "backend/cpu/", "simd/", "runtime/", "core/", "fastkv/"}},
    {"src/backend/cuda/",
     {"backend/backend.hpp", "backend/device_roofline.hpp", "backend/cuda/", "core/", "fastkv/"}},
    {"src/backend/", {"backend/backend.hpp", "core/", "fastkv/"}},
    {"src/cache/", {"cache/", "backend/backend.hpp", "core/", "fastkv/"}},
    {"src/prefill/", {"prefill/", "cache/", "backend/backend.hpp", "core/", "fastkv/"}},
    {"src/decode/", {"decode/", "cache/", "backend/backend.hpp", "core/", "fastkv/"}},
    {"src/", {"text/", "model/", "prefill/", "cache/", "decode/", "backend/", "runtime/", "core/", "fastkv/"}},
    {"tools/", {"tools/", "common/", "fastkv/"}},
    // Rows and results are JSON, which one header owns.
    {"tools/fastkv-eval/", {"fastkv-eval/", "common/", "fastkv/", "core/json.hpp"}},
    {"bench/", {"bench/", "common/", "fastkv/", "core/json.hpp"}},
    // Kernels are measured on the engine's own threads and pages, products in its own blocks; those of another device
    // measure themselves.
    {"bench/roofline/",
     {"bench/", "common/", "fastkv/", "simd/", "runtime/", "core/json.hpp", "backend/cpu/wide_linear.hpp",
      "backend/device_roofline.hpp"}},
};

const Rule* rule_of(const std::string& path) {
  const Rule* best = nullptr;
  for (const Rule& rule : kRules)
    if (starts_with(path, rule.folder) && (!best || rule.folder.size() > best->folder.size())) best = &rule;
  return best;
}

/// The quoted include of a line, as written; empty: none.
std::string quoted_include(const std::string& line) {
  if (line.find('#') == std::string::npos) return "";
  static const std::regex pattern("^\\s*#\\s*include\\s*\"([^\"]+)\"");
  std::smatch match;
  return std::regex_search(line, match, pattern) ? match[1].str() : "";
}

std::string any_include(const std::string& line) {
  if (line.find('#') == std::string::npos) return "";
  static const std::regex pattern("^\\s*#\\s*include\\s*[<\"]([^\">]+)[>\"]");
  std::smatch match;
  return std::regex_search(line, match, pattern) ? match[1].str() : "";
}

/// Whether `path` may include "name": by its rule, or because the name lies beside it.
bool may_include(const std::string& path, const std::string& name) {
  const Rule* rule = rule_of(path);
  if (!rule) return false;
  for (const std::string& prefix : rule->allowed)
    if (starts_with(name, prefix)) return true;
  // A file beside the including one, or in a folder below it, written without the folder's name.
  const auto folder = std::filesystem::path(FASTKV_SOURCE_DIR) / std::filesystem::path(path).parent_path();
  if (name.find("..") != std::string::npos) return false;
  if (rule->folder == "src/") return name.find('/') == std::string::npos && std::filesystem::exists(folder / name);
  // Programs see tools/ as their include directory.
  const bool program = rule->folder == "tools/" || rule->folder == "bench/";
  return std::filesystem::exists(folder / name) ||
         (program && std::filesystem::exists(std::filesystem::path(FASTKV_SOURCE_DIR) / rule->folder / name));
}

TEST(Includes, PointOneWay) {
  const std::vector<SourceFile> files = source_files({"include", "simd", "src", "tools", "bench"});
  ASSERT_GT(files.size(), 30u) << "the tree was not found";
  for (const SourceFile& file : files) {
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const std::string name = quoted_include(file.lines[i]);
      if (name.empty()) continue;
      EXPECT_TRUE(may_include(file.path, name)) << file.path << ":" << i + 1 << " includes \"" << name << "\"";
    }
  }
}

TEST(Includes, RulesRefuseUpwardIncludes) {
  EXPECT_FALSE(may_include("src/cache/kv_cache.hpp", "prefill/plan.hpp"));
  EXPECT_FALSE(may_include("src/prefill/prefill.cpp", "backend/cpu/linear.hpp"));
  EXPECT_FALSE(may_include("src/core/check.hpp", "runtime/memory.hpp"));
  EXPECT_FALSE(may_include("simd/isa.cpp", "core/dtype.hpp"));
  EXPECT_FALSE(may_include("tools/fastkv_run.cpp", "backend/backend.hpp"));
  EXPECT_FALSE(may_include("include/fastkv/engine.hpp", "core/json.hpp"));
  EXPECT_FALSE(may_include("bench/suite.cpp", "simd/kernels.hpp"));
  EXPECT_FALSE(may_include("bench/roofline/kernels.cpp", "backend/cpu/linear.hpp"));
  EXPECT_TRUE(may_include("src/backend/cpu/linear.cpp", "simd/kernels.hpp"));
}

TEST(Includes, PublicHeadersUseTheStandardLibraryOnly) {
  for (const SourceFile& file : source_files({"include"})) {
    for (const std::string& line : file.lines) {
      const std::string name = any_include(line);
      EXPECT_TRUE(starts_with(name, "fastkv/") || name.find_first_of("./") == std::string::npos)
          << file.path << " includes " << name;
    }
    static const std::regex conditional("^\\s*#\\s*(if|ifdef|ifndef|elif)");
    for (const std::string& line : file.code)
      EXPECT_FALSE(std::regex_search(line, conditional)) << file.path << ": " << line;
  }
}

TEST(Owners, OnePlacePerLibrary) {
  struct Owner {
    std::string include;  ///< prefix of an include
    std::string owner;    ///< prefix of the only paths that may have it
  };
  const std::vector<Owner> owners = {
      {"nlohmann/", "src/core/json.hpp"},
      {"pcre2", "src/text/"},
      {"hwloc", "src/runtime/topology.cpp"},
      {"omp.h", "src/runtime/parallel.cpp"},
      {"cblas", "src/backend/cpu/gemm_openblas.cpp"},
      {"openblas", "src/backend/cpu/gemm_openblas.cpp"},
      {"xsimd", "simd/"},
      {"immintrin.h", "simd/"},
      {"x86intrin.h", "simd/"},
      {"CLI/", "tools/common/"},
      {"cuda", "src/backend/cuda/"},
      {"cublas", "src/backend/cuda/gemm_cublaslt.cpp"},
      {"cub/", "src/backend/cuda/kernels/"},
      {"mma.h", "none: src/backend/cuda/kernels/tensor_core.cuh has the instructions"},
      {"gtest/", "tests/"},
  };
  std::map<std::string, int> uses;
  for (const SourceFile& file : source_files({"include", "simd", "src", "tools", "bench"})) {
    for (const std::string& line : file.lines) {
      const std::string name = any_include(line);
      for (const Owner& owner : owners) {
        if (!starts_with(name, owner.include)) continue;
        ++uses[owner.include];
        EXPECT_TRUE(starts_with(file.path, owner.owner))
            << file.path << " includes " << name << ", owned by " << owner.owner;
      }
    }
    for (const std::string& line : file.code) {
      EXPECT_TRUE(line.find("#pragma omp") == std::string::npos || file.path == "src/runtime/parallel.cpp")
          << file.path << ": " << line;
    }
  }
  for (const char* used : {"nlohmann/", "pcre2", "hwloc", "omp.h", "cuda", "cublas"})
    EXPECT_GT(uses[used], 0) << used << " was not found";
}

}  // namespace
}  // namespace fastkv::test
