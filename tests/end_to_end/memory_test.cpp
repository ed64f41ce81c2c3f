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

TEST(Memory, LinearInThePromptAndWithinThePlan) {
  if (FASTKV_UNDER_ASAN) GTEST_SKIP() << "the sanitizer keeps freed memory";
  if (!reset_peak()) GTEST_SKIP() << "/proc/self/clear_refs cannot be written";
  RandomModel model({"long", 3, 64, 64, 4, 2, 8, 301, {DType::q8_0}, false, true, false}, 11);
  model.config.n_ctx_train = 1 << 16;
  const ModelFile file(model);
  Engine engine(engine_options(file.path(), Compute::f32));
  engine.load();
  MethodOptions fastkv;
  fastkv.method = MethodName::fastkv;
  fastkv.retention = 0.1;
  const std::int64_t lengths[] = {3000, 6000, 12000};
  std::size_t growth[3], planned[3];
  engine.run(model.prompt(500), greedy(fastkv, 2, 0));  // what is allocated once is not of the prompt
  for (int i = 0; i < 3; ++i) {
    const RunOptions options = greedy(fastkv, 2, 0);
    const RunPlan plan = engine.plan(lengths[i], options);
    planned[i] = plan.memory.peak() - plan.memory.weights;
    reset_peak();
    const std::size_t before = memory("VmRSS");
    engine.run(model.prompt(lengths[i]), options);
    growth[i] = memory("VmHWM") - before;
  }
  // One head's float32 scores of 12,000 tokens by 12,000 would be 576 MB.
  EXPECT_LT(growth[2], 100u << 20);
  // The allocator and the counters work in pages and arenas: 4 MiB of slack.
  const std::size_t slack = 4u << 20;
  for (int i = 0; i < 3; ++i) EXPECT_LE(growth[i], planned[i] + slack) << lengths[i] << " tokens";
  EXPECT_LE(growth[2], 2 * growth[1] + slack);
  EXPECT_LE(planned[2], 2 * planned[1] + slack);
  RecordProperty("growth_12000", std::to_string(growth[2]));
  RecordProperty("planned_12000", std::to_string(planned[2]));
}

}  // namespace
}  // namespace fastkv::test
