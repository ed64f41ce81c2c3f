// What evaluations look at inside a run: hidden states after layers, scores of layers; against the oracle's.
#include <gtest/gtest.h>

#include <cmath>

#include "support/compare.hpp"
#include "support/engine_run.hpp"
#include "support/model_file.hpp"
#include "support/spread.hpp"

namespace fastkv::test {
namespace {

const RandomModel& model() {
  static const RandomModel made({"recorded", 4, 96, 128, 6, 2, 64, 301, {DType::f32}, false, false, true}, 1973);
  return made;
}

/// The oracle's run with float32's rounding imitated: how far values may be off.
OracleResult rounded(const Oracle& oracle, const std::vector<std::int32_t>& prompt, OracleRun run,
                     const Imposed& decisions) {
  run.imposed = &decisions;
  run.rounding = Rounding::f32();
  run.rounding.seed = 1;
  return oracle.run(prompt, run);
}

TEST(Recorded, HiddenStatesOfTheLastToken) {
  const ModelFile file(model());
  const Oracle oracle(model().config, model().tensors);
  Engine engine(engine_options(file.path(), Compute::f32));
  const std::vector<std::int32_t> prompt = model().prompt(150);
  const std::size_t layers = std::size_t(model().config.n_layer), width = std::size_t(model().config.n_embd);
  for (MethodName method : {MethodName::full, MethodName::fastkv, MethodName::gemfilter}) {
    SCOPED_TRACE(name(method));
    OracleRun run;
    run.method = method_defaults(method, model().config.n_layer);
    RunOptions options = greedy(options_of(run.method), 1);
    options.record_hidden = true;
    const RunResult found = engine.run(prompt, options);
    ASSERT_EQ(found.hidden.size(), layers * width);
    const Imposed decisions = decisions_of(found.trace);
    run.imposed = &decisions;
    const OracleResult exact = oracle.run(prompt, run), other = rounded(oracle, prompt, run, decisions);
    for (std::size_t l = 0; l < layers; ++l) {
      const std::vector<float> row(found.hidden.begin() + std::ptrdiff_t(l * width),
                                   found.hidden.begin() + std::ptrdiff_t((l + 1) * width));
      EXPECT_LE(max_difference(row, exact.layers[l].hidden),
                kWorst * rms_difference(other.layers[l].hidden, exact.layers[l].hidden))
          << "layer " << l;
    }
    EXPECT_TRUE(engine.run(prompt, greedy(options_of(run.method), 1)).hidden.empty()) << "not asked for";
  }
}

TEST(Recorded, ScoresOfLayers) {
  const ModelFile file(model());
  const Oracle oracle(model().config, model().tensors);
  Engine engine(engine_options(file.path(), Compute::f32));
  const std::vector<std::int32_t> prompt = model().prompt(150);
  OracleRun run;
  run.method = method_defaults(MethodName::snapkv, model().config.n_layer);  // its prefill is full's
  run.method.window = 5;
  const OracleResult exact = oracle.run(prompt, run);
  Imposed decisions;
  for (const OracleLayer& layer : exact.layers) decisions.kept.push_back(layer.kept);
  const OracleResult other = rounded(oracle, prompt, run, decisions);

  RunOptions options = greedy(options_of(full_method()), 1);
  options.score_rows = 5;
  const RunResult found = engine.run(prompt, options);
  const std::size_t n = prompt.size() - 5;
  ASSERT_EQ(found.layer_scores.size(), exact.layers.size() * n);
  const auto sums = [&](const OracleLayer& layer) {
    std::vector<double> sum(n);
    for (const auto& head : layer.raw)
      for (std::size_t j = 0; j < n; ++j) sum[j] += head[j];
    return sum;
  };
  for (std::size_t l = 0; l < exact.layers.size(); ++l) {
    const std::vector<float> row(found.layer_scores.begin() + std::ptrdiff_t(l * n),
                                 found.layer_scores.begin() + std::ptrdiff_t((l + 1) * n));
    const std::vector<double> expected = sums(exact.layers[l]), moved = sums(other.layers[l]);
    std::vector<double> logs;
    for (std::size_t j = 0; j < n; ++j) logs.push_back(std::log(moved[j] / expected[j]));
    EXPECT_LE(max_log_difference(row, expected), kWorst * rms_difference(logs, std::vector<double>(n)))
        << "layer " << l;
  }
  const auto refusal = [&](MethodName method, int rows) -> std::string {
    RunOptions wrong = greedy(options_of(method_defaults(method, model().config.n_layer)), 1);
    wrong.score_rows = rows;
    try {
      engine.plan(150, wrong);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  };
  EXPECT_EQ(refusal(MethodName::fastkv, 5),
            "scores of layers need the method full: in others layers see different tokens");
  EXPECT_EQ(refusal(MethodName::full, 150), "scores of layers: 150 scoring rows of 150 tokens leave none to be scored");
}

}  // namespace
}  // namespace fastkv::test
