// Memory of long prompts: linear in the length, within the printed plan, and no L×L matrix anywhere.
#include <gtest/gtest.h>

#include <fstream>

#include "support/engine_run.hpp"
#include "support/model_file.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define FASTKV_UNDER_ASAN 1
#else
#define FASTKV_UNDER_ASAN 0
#endif

namespace fastkv::test {
namespace {

/// VmHWM or VmRSS of this process, in bytes; 0: not to be had.
std::size_t memory(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(key + ":", 0) == 0) return std::stoull(line.substr(key.size() + 1)) * 1024;
  return 0;
}

/// Starts VmHWM anew; false where the kernel does not let.
bool reset_peak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  return bool(clear);
}

class Memory : public testing::TestWithParam<MethodName> {};

TEST_P(Memory, LinearInThePromptAndWithinThePlan) {
  if (FASTKV_UNDER_ASAN) GTEST_SKIP() << "the sanitizer keeps freed memory";
  if (!reset_peak()) GTEST_SKIP() << "/proc/self/clear_refs cannot be written";
  RandomModel model({"long", 2, 64, 64, 4, 2, 8, 301, {DType::q8_0}, false, true, false}, 11);
  model.config.n_ctx_train = 1 << 16;
  const ModelFile file(model);
  // Huge pages that buffers share are touched whole: what one run leaves of them, the next need not touch again.
  EngineOptions small_pages = engine_options(file.path(), Compute::f32);
  small_pages.huge_pages = HugePages::off;
  Engine engine(small_pages);
  engine.load();
  MethodOptions method;
  method.method = GetParam();
  if (GetParam() == MethodName::fastkv) method.retention = 0.1;
  const std::int64_t lengths[] = {2000, 4000, 8000};
  std::size_t growth[3], planned[3];
  engine.run(model.prompt(500), greedy(method, 2, 0));  // what is allocated once is not of the prompt
  for (int i = 0; i < 3; ++i) {
    RunOptions options = greedy(method, 2, 0);
    options.record_trace = false;
    const RunPlan plan = engine.plan(lengths[i], options);
    planned[i] = plan.memory.peak() - plan.memory.weights;
    ASSERT_TRUE(reset_peak());
    const std::size_t before = memory("VmRSS");
    engine.run(model.prompt(lengths[i]), options);
    growth[i] = memory("VmHWM") - before;
  }
  // The allocator and the counters work in pages and arenas: 4 MiB of slack.
  const std::size_t slack = 4u << 20;
  for (int i = 0; i < 3; ++i) EXPECT_LE(growth[i], planned[i] + slack) << lengths[i] << " tokens";
  EXPECT_LE(growth[2], 2 * growth[1] + slack);
  EXPECT_LE(planned[2], 2 * planned[1] + slack);
  // One head's float32 scores of 8000 tokens by 8000 would be 256 MB.
  EXPECT_LT(growth[2], 64u << 20);
  RecordProperty("growth_8000", std::to_string(growth[2]));
  RecordProperty("planned_8000", std::to_string(planned[2]));
}

INSTANTIATE_TEST_SUITE_P(Methods, Memory, testing::Values(MethodName::full, MethodName::fastkv),
                         [](const auto& param) { return param.param == MethodName::full ? "full" : "fastkv"; });

}  // namespace
}  // namespace fastkv::test
