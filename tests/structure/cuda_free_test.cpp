// A build without CUDA has no trace of it: neither a symbol nor a library.
#include <gtest/gtest.h>

#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace fastkv::test {
namespace {

std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return out;
  char part[4096];
  for (std::size_t n; (n = std::fread(part, 1, sizeof part, pipe)) > 0;) out.append(part, n);
  pclose(pipe);
  return out;
}

bool built_with_cuda() {
  std::ifstream cache(FASTKV_BINARY_DIR "/CMakeCache.txt");
  for (std::string line; std::getline(cache, line);)
    if (line.rfind("FASTKV_CUDA:BOOL=", 0) == 0) return line != "FASTKV_CUDA:BOOL=OFF";
  return false;
}

/// The first line that names CUDA or one of its libraries; empty: none.
std::string trace_of_cuda(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::string lower = line;
    for (char& c : lower) c = char(std::tolower(static_cast<unsigned char>(c)));
    for (const char* word : {"cuda", "cublas", "nvidia"})
      if (lower.find(word) != std::string::npos) return line;
  }
  return "";
}

TEST(CudaFree, NoSymbolAndNoLibrary) {
  if (built_with_cuda()) GTEST_SKIP() << "this build has CUDA";
  const std::filesystem::path root = FASTKV_BINARY_DIR;
  ASSERT_EQ(trace_of_cuda("U malloc\nU cudaMalloc\n"), "U cudaMalloc");
  const std::string library = output_of("nm --demangle " + (root / "src" / "libfastkv.a").string() + " 2>&1");
  ASSERT_NE(library.find("fastkv::make_backend"), std::string::npos) << library.substr(0, 200);
  EXPECT_EQ(trace_of_cuda(library), "");
  if (!std::filesystem::exists(root / "bin")) return;
  for (const auto& program : std::filesystem::directory_iterator(root / "bin")) {
    const std::string needed = output_of("readelf --dynamic " + program.path().string() + " 2>&1");
    ASSERT_NE(needed.find("libc.so"), std::string::npos) << needed.substr(0, 200);
    EXPECT_EQ(trace_of_cuda(needed), "") << program.path();
  }
}

}  // namespace
}  // namespace fastkv::test
