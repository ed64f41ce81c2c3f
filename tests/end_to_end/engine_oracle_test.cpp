// The whole engine, from file to tokens, against the oracle on random models: methods, lengths and arithmetics.
#include <gtest/gtest.h>

#include <cmath>

#include "support/cases.hpp"
#include "support/engine_run.hpp"
#include "support/head_budgets.hpp"
#include "support/model_file.hpp"
#include "support/spread.hpp"

namespace fastkv::test {
namespace {

constexpr int kGenerated = 5;
constexpr std::uint64_t kSeed = 31337;

RandomShape file_shape(const char* name, std::vector<DType> types, bool tied, bool biases) {
  return {name, 4, 96, 128, 6, 2, 64, 301, std::move(types), biases, tied, true};
}

struct EngineCase {
  Compute compute;
  std::vector<DType> types;
  const char* name;
};

class EngineOracle : public testing::TestWithParam<EngineCase> {};

TEST_P(EngineOracle, EveryMethodCase) {
  const EngineCase& param = GetParam();
  const bool floats = param.types[0] == DType::f32;
  const RandomModel model(file_shape(param.name, param.types, !floats, floats), kSeed);
  const ModelFile file(model);
  const Oracle oracle(model.config, model.tensors);
  Engine engine(engine_options(file.path(), param.compute));
  engine.load();
  std::size_t c = 0;
  for (const MethodCase& one : method_cases(model.config.n_layer)) {
    if (param.compute != Compute::f32 && c++ % 4 != 2) continue;
    std::ostringstream where;
    where << model << ", case " << one.name << ", " << engine.info().isa;
    SCOPED_TRACE(where.str());
    const std::vector<std::int32_t> prompt = model.prompt(one.n);
    const RunResult found = engine.run(prompt, greedy(options_of(one.method), kGenerated));
    ASSERT_EQ(found.tokens.size(), std::size_t(kGenerated));

    OracleRun run;
    run.method = one.method;
    run.n_generate = kGenerated;
    run.feed = found.tokens;
    const OracleResult own = oracle.run(prompt, run);
    const Spread spread = measure_spread(oracle, prompt, run, own, rounding_of(param.compute), 2);
    const Imposed decisions = decisions_of(found.trace);
    run.imposed = &decisions;
    const OracleResult exact = oracle.run(prompt, run);

    // Lengths are decided before anything is computed, so that they are the oracle's own.
    EXPECT_EQ(found.trace.kv_bytes_f16, own.kv_bytes_f16);
    EXPECT_EQ(found.trace.next_position, one.n);
    for (std::size_t l = 0; l < own.layers.size(); ++l) {
      EXPECT_EQ(found.trace.layers[l].tokens_in, own.layers[l].tokens_in) << "layer " << l;
      EXPECT_EQ(found.plan.layers[l].tokens_in, own.layers[l].tokens_in) << "layer " << l;
      for (std::size_t k = 0; k < own.layers[l].kept.size(); ++k) {
        const auto& kept = found.trace.layers[l].kept[k];
        EXPECT_EQ(kept.size(), own.layers[l].kept[k].size()) << "layer " << l << ", head " << k;
        EXPECT_EQ(std::int64_t(kept.size()), found.plan.layers[l].kept);
        EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
        if (param.compute == Compute::f32) {
          EXPECT_EQ(kept, own.layers[l].kept[k]) << "layer " << l << ", head " << k;
        }
      }
    }
    if (one.method.tsp_layer + 1 == model.config.n_layer) {
      EXPECT_TRUE(found.trace.tsp_kept.empty()) << "after the last layer there is nothing to propagate to";
    } else {
      EXPECT_EQ(found.trace.tsp_kept.size(), own.tsp_kept.size());
      if (param.compute == Compute::f32) {
        EXPECT_EQ(found.trace.tsp_kept, own.tsp_kept);
      }
    }
    for (const auto& [token, logit] : found.trace.first_logits)
      EXPECT_NEAR(logit, exact.logits[std::size_t(token)], kWorst * spread.logits) << "token " << token;
    for (int t = 0; t < kGenerated; ++t) {
      const std::vector<double>& logits = t == 0 ? exact.logits : exact.decode_logits[std::size_t(t - 1)];
      const double best = *std::max_element(logits.begin(), logits.end());
      EXPECT_GE(logits[std::size_t(found.tokens[std::size_t(t)])] + 2 * kWorst * spread.logits, best) << "step " << t;
    }
    if (HasFailure()) return;
  }
}

TEST_P(EngineOracle, EveryMethod) {
  const EngineCase& param = GetParam();
  const bool floats = param.types[0] == DType::f32;
  const RandomModel model(file_shape(param.name, param.types, !floats, floats), kSeed);
  const ModelFile file(model);
  const Oracle oracle(model.config, model.tensors);
  Engine engine(engine_options(file.path(), param.compute, 1));
  engine.load();
  std::size_t c = 0;
  for (MethodCase one : rival_cases(model.config)) {
    if (!floats && c++ % 4 != std::size_t(param.compute) % 4) continue;
    const HeadBudgets table(model.config.n_layer, model.config.n_head,
                            one.method.head_shares.empty() ? std::vector<double>(24, 1) : one.method.head_shares);
    if (one.method.method == MethodName::headkv) one.method.head_budgets = table.path();
    SCOPED_TRACE(one.name + ", " + engine.info().isa);
    const std::vector<std::int32_t> prompt = model.prompt(one.n);
    const RunResult found = engine.run(prompt, greedy(options_of(one.method), kGenerated));
    ASSERT_EQ(found.tokens.size(), std::size_t(kGenerated));

    OracleRun run;
    run.method = one.method;
    run.n_generate = kGenerated;
    run.feed = found.tokens;
    const OracleResult own = oracle.run(prompt, run);
    const Spread spread = measure_spread(oracle, prompt, run, own, rounding_of(param.compute), 1);
    const Imposed decisions = decisions_of(found.trace);
    run.imposed = &decisions;
    const OracleResult exact = oracle.run(prompt, run);

    EXPECT_EQ(found.trace.next_position, own.next_position);
    EXPECT_EQ(found.trace.selected.size(), own.selected.size());
    if (param.compute == Compute::f32 || one.method.method != MethodName::adakv) {
      EXPECT_EQ(found.trace.kv_bytes_f16, own.kv_bytes_f16);
    }
    ASSERT_EQ(found.trace.layers.size(), own.layers.size());
    for (std::size_t l = 0; l < own.layers.size(); ++l) {
      EXPECT_EQ(found.trace.layers[l].tokens_in, own.layers[l].tokens_in) << "layer " << l;
      EXPECT_EQ(found.trace.layers[l].kept.size(), own.layers[l].kept.size()) << "layer " << l;
      if (param.compute == Compute::f32) {
        EXPECT_EQ(found.trace.layers[l].kept, own.layers[l].kept) << "layer " << l;
      }
    }
    if (param.compute == Compute::f32) {
      EXPECT_EQ(found.trace.selected, own.selected);
    }
    for (const auto& [token, logit] : found.trace.first_logits)
      EXPECT_NEAR(logit, exact.logits[std::size_t(token)], kWorst * spread.logits) << "token " << token;
    for (int t = 0; t < kGenerated; ++t) {
      const std::vector<double>& logits = t == 0 ? exact.logits : exact.decode_logits[std::size_t(t - 1)];
      const double best = *std::max_element(logits.begin(), logits.end());
      EXPECT_GE(logits[std::size_t(found.tokens[std::size_t(t)])] + 2 * kWorst * spread.logits, best) << "step " << t;
    }
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Files, EngineOracle,
    testing::Values(EngineCase{Compute::f32, {DType::f32}, "f32_floats"},
                    EngineCase{Compute::f32, {DType::q4_0, DType::q8_0, DType::q4_1}, "f32_quants"},
                    EngineCase{Compute::bf16, {DType::bf16, DType::f16}, "bf16_halves"},
                    EngineCase{Compute::int8, {DType::q4_0, DType::q8_0, DType::q5_0}, "int8_quants"}),
    [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace fastkv::test
