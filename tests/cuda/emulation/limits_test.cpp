// What the CUDA backend says and does where there is no device, and where a prompt needs more memory than it has.
#include <gtest/gtest.h>

#include "backend/cuda/cuda_backend.hpp"
#include "cache/kv_cache.hpp"
#include "cuda/emulation/control.hpp"
#include "support/engine_run.hpp"
#include "support/model_file.hpp"

namespace fastkv::test {
namespace {

/// Puts the emulated device back as it was.
class Limits : public testing::Test {
 protected:
  ~Limits() override {
    emulation::device() = before_;
    cudaGetLastError();
  }

  static EngineOptions cuda_options(const std::string& model) {
    EngineOptions options = engine_options(model, Compute::automatic);
    options.device = "cuda";
    return options;
  }
  static RunOptions run_options(MethodName method) {
    MethodOptions m;
    m.method = method;
    m.min_prompt = 0;
    if (method == MethodName::fastkv) m.retention = 0.2;
    RunOptions options = greedy(m, 3, 0);
    options.record_trace = false;
    return options;
  }

  emulation::Device before_ = emulation::device();
};

TEST_F(Limits, NoDevice) {
  const RandomModel model({"none", 1, 32, 32, 2, 1, 16, 67, {DType::f32}, false, true, false}, 1);
  EXPECT_NE(cuda::devices().find("sm_"), std::string::npos);
  emulation::device().present = false;
  EngineOptions options;
  options.device = "cuda";
  try {
    make_backend(options, model.config, model.tensors);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("--device cuda"), std::string::npos) << error.what();
  }
  EXPECT_NE(devices_text().find("cuda: no device"), std::string::npos);
}

// A kernel that crashes takes the device with it: every call fails from then on, those of clean-up too.
TEST_F(Limits, ADeviceThatHasFailedIsAnErrorOfEveryOperation) {
  const RandomModel model({"failed", 1, 32, 32, 2, 1, 16, 67, {DType::f32}, false, true, false}, 1);
  EngineOptions options;
  options.device = "cuda";
  const auto backend = make_backend(options, model.config, model.tensors);
  RunControl control;
  backend->load(model.tensors, {}, control);
  const auto x = backend->embed(model.prompt(3), {0, 1, 2}, control);
  const auto state = backend->begin_layer(0, *x, {2}, control);
  const auto scores = backend->column_scores(0, *state, {2, 2}, control);
  const auto keep = backend->top_k(*scores, 3, {3}, 0, 2);
  const CacheFormat format{CacheType::bf16, CacheType::bf16, 1};
  KvCache cache;
  cache.layers.push_back(backend->store(*state, *keep, format, control));
  std::vector<float> logits(67);
  const std::vector<std::int32_t> tokens = {5};
  const SequenceStep step = cache.step(tokens);
  const auto expect_failure = [](const auto& operation) {
    try {
      operation();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::internal);
      EXPECT_NE(std::string(error.what()).find("unspecified launch failure"), std::string::npos) << error.what();
    }
  };
  emulation::device().failed = true;
  expect_failure([&] { backend->embed(model.prompt(3), {0, 1, 2}, control); });
  expect_failure([&] { backend->begin_layer(0, *x, {2}, control); });
  expect_failure([&] { backend->column_scores(0, *state, {2, 2}, control); });
  expect_failure([&] { backend->pool(*scores, Pooling::max, {1, 1}); });
  expect_failure([&] { backend->top_k(*scores, 3, {3}, 0, 2); });
  expect_failure([&] { backend->store(*state, *keep, format, control); });
  expect_failure([&] { backend->finish_layer(0, *x, *state, nullptr, control); });
  expect_failure([&] { backend->logits(*x, 1, logits.data(), control); });
  expect_failure([&] { backend->decode_step({&step, 1}, {logits.data()}, control); });
  expect_failure([&] { backend->take_stage_times(); });
}

TEST_F(Limits, ThePeakIsWithinThePlan) {
  RandomModel model({"peak", 3, 64, 128, 4, 2, 16, 131, {DType::q4_0, DType::q8_0}, false, false, false}, 2);
  const ModelFile file(model);
  for (const MethodName method : {MethodName::full, MethodName::fastkv, MethodName::h2o})
    for (const std::int64_t n : {100, 400}) {
      SCOPED_TRACE(testing::Message() << name(method) << ", " << n << " tokens");
      const RunOptions options = run_options(method);
      Engine engine(cuda_options(file.path()));  // one that has run keeps what the run needed until the next
      engine.load();
      const MemoryPlan memory = engine.plan(n, options).memory;
      emulation::reset_peak();
      engine.run(model.prompt(n), options);
      // cuBLASLt's space is larger than everything of so small a model
      const std::size_t peak = emulation::peak_memory() - cuda::Gemm::work_bytes();
      const std::size_t planned = memory.peak() - cuda::Gemm::work_bytes();
      EXPECT_LE(peak, planned);
      EXPECT_GE(double(peak), 0.7 * double(planned)) << "the plan is far too high";
    }
}

TEST_F(Limits, OutOfMemoryNamesThePromptThatFits) {
  RandomModel model({"limit", 2, 64, 64, 4, 2, 16, 131, {DType::q8_0}, false, false, false}, 2);
  const ModelFile file(model);
  for (const MethodName method : {MethodName::full, MethodName::fastkv}) {
    emulation::device() = before_;
    EngineOptions settings = cuda_options(file.path());
    settings.tile_rows = 64;
    Engine engine(settings);
    engine.load();
    emulation::device().memory = emulation::used_memory() + (std::size_t(600) << 10);
    const RunOptions options = run_options(method);
    std::string message;
    try {
      engine.run(model.prompt(1000), options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
      message = error.what();
    }
    const std::size_t at = message.find("a prompt of ");
    ASSERT_NE(at, std::string::npos) << message;
    const std::int64_t fits = std::stoll(message.substr(at + 12));
    EXPECT_GT(fits, 50) << message;
    EXPECT_LT(fits, 1000) << message;
    EXPECT_THROW(engine.run(model.prompt(fits + 1), options), Error);
    emulation::reset_peak();
    EXPECT_EQ(engine.run(model.prompt(fits), options).tokens.size(), 3u);
    EXPECT_LE(emulation::peak_memory(), emulation::device().memory);
  }
}

}  // namespace
}  // namespace fastkv::test
