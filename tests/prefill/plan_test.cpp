// Lengths of every layer as pure numbers, and the messages for options that cannot be meant.
#include "prefill/plan.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "fastkv/error.hpp"
#include "prefill/methods/method.hpp"
#include "reference/oracle.hpp"

namespace fastkv::test {
namespace {

ModelConfig model_of(int n_layer) {
  ModelConfig config;
  config.n_layer = n_layer;
  config.n_head = 8;
  config.n_head_kv = 2;
  return config;
}

std::vector<LayerPlan> plan_of(const MethodParams& params, int n_layer, std::int64_t n_prompt) {
  RunPlan plan;
  plan.method = params;
  plan.n_prompt = n_prompt;
  plan_layers(plan, model_of(n_layer));
  return plan.layers;
}

TEST(Truncated, IsTheDoubleProductCutOff) {
  EXPECT_EQ(truncated(79, 0.1), 7);
  EXPECT_EQ(truncated(80, 0.1), 8);
  EXPECT_EQ(truncated(8192, 0.1), 819);
  EXPECT_EQ(truncated(32768, 0.1), 3276);
  EXPECT_EQ(truncated(131072, 0.1), 13107);
  EXPECT_EQ(truncated(8192, 0.2), 1638);
  EXPECT_EQ(truncated(32768, 0.2), 6553);
  EXPECT_EQ(truncated(131072, 0.2), 26214);
  EXPECT_EQ(truncated(1000, 0.3 / 0.2), 1499);  // 0.3/0.2 is 1.4999999999999998
  EXPECT_EQ(truncated(1000, 0.15 / 0.2), 749);  // 0.15/0.2 is 0.7499999999999999
}

TEST(PlanLayers, PaperNumbers) {
  // Llama-3.1-8B at 32768 tokens (spec/methods.md 2.2).
  MethodParams p = fastkv_defaults(32);
  const std::vector<LayerPlan> layers = plan_of(p, 32, 32768);
  for (int l = 0; l < 32; ++l) {
    EXPECT_EQ(layers[std::size_t(l)].tokens_in, l <= 15 ? 32768 : 6553);
    EXPECT_EQ(layers[std::size_t(l)].kept, 3276);
  }
  EXPECT_EQ(layers[15].tokens_out, 6553);
  EXPECT_EQ(layers[31].tokens_out, 1);
}

struct Lengths {
  std::int64_t before, tokens, after;  ///< kept up to TSP, propagated, kept after it
};

Lengths lengths(const MethodParams& p, std::int64_t n) {
  const std::vector<LayerPlan> layers = plan_of(p, 4, n);
  EXPECT_EQ(layers[0].kept, layers[1].kept);
  EXPECT_EQ(layers[2].kept, layers[3].kept);
  EXPECT_EQ(layers[1].tokens_out, layers[2].tokens_in);
  EXPECT_EQ(layers[2].tokens_in, layers[3].tokens_in);
  return {layers[1].kept, layers[2].tokens_in, layers[2].kept};
}

void expect_lengths(const MethodParams& p, std::int64_t n, Lengths expected) {
  const Lengths found = lengths(p, n);
  EXPECT_EQ(found.before, expected.before) << n;
  EXPECT_EQ(found.tokens, expected.tokens) << n;
  EXPECT_EQ(found.after, expected.after) << n;
}

TEST(PlanLayers, ConstantBudgets) {
  MethodParams p = fastkv_defaults(4);
  p.proportional = p.tsp_by_rate = false;
  p.kv_budget = 24;
  p.tsp_tokens = 40;
  expect_lengths(p, 1, {1, 1, 1});
  expect_lengths(p, 23, {23, 23, 23});
  expect_lengths(p, 24, {24, 24, 24});
  expect_lengths(p, 25, {24, 25, 24});
  expect_lengths(p, 40, {24, 40, 24});
  expect_lengths(p, 41, {24, 40, 24});
  expect_lengths(p, 4000, {24, 40, 24});
  p.kv_budget = 80;                     // more than is propagated
  expect_lengths(p, 60, {60, 60, 60});  // n < C: the layer leaves early, and TSP with it
  expect_lengths(p, 80, {80, 40, 40});
  expect_lengths(p, 100, {80, 40, 40});
}

TEST(PlanLayers, ProportionalBudgets) {
  MethodParams p = fastkv_defaults(4);
  expect_lengths(p, 8, {8, 8, 8});  // no longer than the window
  expect_lengths(p, 9, {8, 8, 8});  // both clamped to the window
  expect_lengths(p, 79, {8, 15, 8});
  expect_lengths(p, 80, {8, 16, 8});
  expect_lengths(p, 1000, {100, 200, 100});
  p.retention = 0.3;  // above the rate
  expect_lengths(p, 1000, {300, 200, 200});
  p.retention = 0.15;
  expect_lengths(p, 1000, {150, 200, 149});
  p.retention = p.tsp_rate = 1;
  expect_lengths(p, 1000, {1000, 1000, 1000});
  p.tsp_by_rate = false;
  p.tsp_tokens = 300;
  p.retention = 0.2;  // after TSP: a share of the prompt, not of what was propagated
  expect_lengths(p, 1000, {200, 300, 200});
  expect_lengths(p, 5000, {1000, 300, 300});
}

TEST(PlanLayers, FullKeepsEverything) {
  for (const LayerPlan& layer : plan_of(full_method(), 4, 77)) {
    EXPECT_EQ(layer.tokens_in, 77);
    EXPECT_EQ(layer.kept, 77);
  }
}

void expect_rejected(const std::function<void(MethodOptions&)>& change, const std::string& message) {
  MethodOptions options;
  options.method = MethodName::fastkv;
  change(options);
  std::vector<std::string> notes;
  try {
    resolve(options, model_of(32), 10000, notes);
    FAIL() << "accepted; expected: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_option);
    EXPECT_EQ(std::string(error.what()), message);
  }
}

TEST(Resolve, RejectsWhatCannotBeMeant) {
  using O = MethodOptions;
  expect_rejected([](O& o) { o.tsp_rate = 0.2, o.tsp_tokens = 100; }, "--tsp-rate and --tsp-tokens exclude each other");
  expect_rejected([](O& o) { o.retention = 0.2, o.kv_budget = 100; }, "--retention and --kv-budget exclude each other");
  expect_rejected([](O& o) { o.method = MethodName::full, o.tsp_rate = 0.2; },
                  "--tsp-rate has no effect with --method full");
  expect_rejected([](O& o) { o.tsp_layer = 40; }, "--tsp-layer 40: the model has 32 layers (0..31)");
  expect_rejected([](O& o) { o.kernel = 6; }, "--kernel 6: must be odd");
  expect_rejected([](O& o) { o.tsp_shift = 4; },
                  "--tsp-shift 4 is above half of --kernel 7: a score would leave its own row out");
  expect_rejected([](O& o) { o.kv_budget = 8; }, "--kv-budget 8 leaves no room beyond --window 8");
  expect_rejected([](O& o) { o.tsp_tokens = 8; }, "--tsp-tokens 8 leaves no room beyond --window 8");
  using Change = std::function<void(O&)>;
  const std::vector<Change> out_of_range = {
      [](O& o) { o.tsp_layer = -1; },   [](O& o) { o.tsp_rate = 0; },    [](O& o) { o.tsp_rate = 1.5; },
      [](O& o) { o.retention = -0.1; }, [](O& o) { o.retention = NAN; }, [](O& o) { o.window = 0; },
      [](O& o) { o.kernel = -1; },      [](O& o) { o.sinks = -2; },      [](O& o) { o.kv_budget = -5; },
      [](O& o) { o.tsp_tokens = 0; },   [](O& o) { o.tsp_window = 0; },  [](O& o) { o.kernel = 0; },
      [](O& o) { o.tsp_shift = -1; }};
  for (const Change& change : out_of_range) {
    MethodOptions options;
    options.method = MethodName::fastkv;
    change(options);
    std::vector<std::string> notes;
    EXPECT_THROW(resolve(options, model_of(32), 10000, notes), Error);
  }
}

TEST(Resolve, ShortPromptsRunFullUnlessAskedOtherwise) {
  MethodOptions options;
  std::vector<std::string> notes;
  EXPECT_EQ(resolve(options, model_of(32), 1023, notes).method, MethodName::full);
  EXPECT_EQ(notes.size(), 1u);
  EXPECT_EQ(resolve(options, model_of(32), 1024, notes).method, MethodName::fastkv);
  options.retention = 0.1;
  EXPECT_EQ(resolve(options, model_of(32), 100, notes).method, MethodName::fastkv);
}

}  // namespace
}  // namespace fastkv::test
