// One OpenMP runtime in the process, with OpenBLAS loaded and the team at work.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "fastkv/engine.hpp"
#include "support/fixtures.hpp"

namespace fastkv::test {
namespace {

bool mapped(const std::string& library) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find("/" + library) != std::string::npos) return true;
  return false;
}

TEST(OpenMp, OneRuntimeWithOpenBlasLoaded) {
  const auto file = fixtures() / "models" / "stories260K-f32.gguf";
  FASTKV_REQUIRE_FILE(file);
  EngineOptions options;
  options.model = file.string();
  options.threads = options.threads_batch = 2;
  options.compute = Compute::f32;
  options.gemm = Gemm::openblas;
  Engine engine(options);
  engine.load();
  RunOptions run;
  run.method.method = MethodName::full;
  run.n_predict = 2;
  run.sampling.temperature = 0;
  const std::vector<std::int32_t> prompt(40, 5);
  engine.run(prompt, run);
  EXPECT_TRUE(mapped("libopenblas")) << "the engine says: " << engine.info().gemm;
  EXPECT_TRUE(mapped("libomp"));
  EXPECT_FALSE(mapped("libgomp"));
  EXPECT_FALSE(mapped("libiomp5"));
}

}  // namespace
}  // namespace fastkv::test
