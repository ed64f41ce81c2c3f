// The same bits for any number of threads; the same decisions for any tile.
#include <gtest/gtest.h>

#include "support/cases.hpp"
#include "support/engine_run.hpp"
#include "support/head_budgets.hpp"
#include "support/model_file.hpp"
#include "support/spread.hpp"

namespace fastkv::test {
namespace {

RandomModel small_model(bool floats) {
  RandomShape shape{"threads", 4, 96, 128, 6, 2, 64, 301, {DType::q4_0, DType::q8_0, DType::q5_0}, false, false, false};
  if (floats) shape.types = {DType::f32, DType::f16};
  return RandomModel(shape, 99);
}

MethodOptions some_fastkv() {
  MethodOptions o;
  o.method = MethodName::fastkv;
  o.retention = 0.2;
  o.tsp_rate = 0.5;
  return o;
}

void expect_same_run(const RunResult& a, const RunResult& b) {
  EXPECT_EQ(a.trace.first_logits, b.trace.first_logits);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.trace.tsp_kept, b.trace.tsp_kept);
  EXPECT_EQ(a.trace.selected, b.trace.selected);
  for (std::size_t l = 0; l < a.trace.layers.size(); ++l) {
    EXPECT_EQ(a.trace.layers[l].kept, b.trace.layers[l].kept) << "layer " << l;
    EXPECT_EQ(a.trace.layers[l].coverage, b.trace.layers[l].coverage) << "layer " << l;
  }
}

class Determinism : public testing::TestWithParam<Arithmetic> {};

TEST_P(Determinism, AnyNumberOfThreads) {
  const RandomModel model = small_model(GetParam().compute != Compute::int8);
  const ModelFile file(model);
  const std::vector<std::int32_t> prompt = model.prompt(301);
  RunOptions options = greedy(some_fastkv(), 10);
  RunOptions all = greedy(MethodOptions{}, 1);
  all.method.method = MethodName::full;
  all.all_logits = true;
  RunResult expected, expected_all;
  const HeadBudgets table(4, 6,
                          std::vector<double>{9, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6});
  std::vector<RunResult> expected_rivals;
  for (int threads : {1, 2, 3, 5}) {
    EngineOptions engine_option = engine_options(file.path(), GetParam().compute, threads);
    engine_option.gemm = GetParam().gemm;
    Engine engine(engine_option);
    engine.load();
    EXPECT_EQ(engine.info().threads, threads);
    RunResult found = engine.run(prompt, options);
    RunResult found_all = engine.run(prompt, all);
    std::vector<RunResult> rivals;
    for (MethodName method : all_methods()) {
      if (threads != 1 && threads != 3) break;
      MethodOptions rival;
      rival.method = method;
      rival.min_prompt = 0;
      if (method == MethodName::headkv) rival.head_budgets = table.path();
      rivals.push_back(engine.run(prompt, greedy(rival, 4)));
    }
    if (threads == 1) {
      expected_rivals = std::move(rivals);
      expected = std::move(found);
      expected_all = std::move(found_all);
      continue;
    }
    SCOPED_TRACE(std::to_string(threads) + " threads");
    expect_same_run(found, expected);
    EXPECT_EQ(found_all.all_logits, expected_all.all_logits);
    for (std::size_t m = 0; m < rivals.size(); ++m) {
      SCOPED_TRACE(name(all_methods()[m]));
      expect_same_run(rivals[m], expected_rivals[m]);
    }
  }
}

TEST_P(Determinism, AnyTile) {
  const RandomModel model = small_model(GetParam().compute != Compute::int8);
  const ModelFile file(model);
  const std::vector<std::int32_t> prompt = model.prompt(301);
  const Oracle oracle(model.config, model.tensors);
  OracleRun run;
  run.method = fastkv_defaults(model.config.n_layer);
  run.method.retention = 0.2;
  run.method.tsp_rate = 0.5;
  RunResult expected;
  double bound = 0;
  for (int tile : {16, 32, 48, 128}) {
    EngineOptions engine_option = engine_options(file.path(), GetParam().compute);
    engine_option.gemm = GetParam().gemm;
    engine_option.tile_rows = tile;
    Engine engine(engine_option);
    engine.load();
    RunResult found = engine.run(prompt, greedy(some_fastkv(), 10));
    if (tile == 16) {
      expected = std::move(found);
      const Imposed decisions = decisions_of(expected.trace);
      run.imposed = &decisions;
      const OracleResult exact = oracle.run(prompt, run);
      bound = kWorst * measure_spread(oracle, prompt, run, exact, rounding_of(GetParam().compute), 1).logits;
      run.imposed = nullptr;
      continue;
    }
    SCOPED_TRACE("tiles of " + std::to_string(tile) + " rows");
    EXPECT_EQ(found.tokens, expected.tokens);
    EXPECT_EQ(found.trace.tsp_kept, expected.trace.tsp_kept);
    for (std::size_t l = 0; l < expected.trace.layers.size(); ++l)
      EXPECT_EQ(found.trace.layers[l].kept, expected.trace.layers[l].kept) << "layer " << l;
    for (std::size_t i = 0; i < expected.trace.first_logits.size(); ++i)
      EXPECT_NEAR(found.trace.first_logits[i].second, expected.trace.first_logits[i].second, bound);
  }
}

INSTANTIATE_TEST_SUITE_P(Arithmetics, Determinism, testing::ValuesIn(arithmetics()),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace fastkv::test
