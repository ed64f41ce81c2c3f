// The invariants of spec/methods.md 6 that concern full and fastkv, on a real tiny model, bit by bit where they say so.
#include <gtest/gtest.h>

#include <algorithm>

#include "support/engine_run.hpp"
#include "support/fixtures.hpp"

namespace fastkv::test {
namespace {

std::string stories() { return (fixtures() / "models" / "stories260K-f32.gguf").string(); }

/// 300 ids that repeat a motif with variations, so that attention has something to prefer.
std::vector<std::int32_t> some_prompt(std::int64_t n) {
  std::vector<std::int32_t> ids = {1};
  for (std::int64_t i = 1; i < n; ++i) ids.push_back(std::int32_t(259 + (i * i * 7 + i / 9) % 250));
  return ids;
}

MethodOptions fastkv() {
  MethodOptions o;
  o.method = MethodName::fastkv;
  return o;
}

MethodOptions full() {
  MethodOptions o;
  o.method = MethodName::full;
  return o;
}

class Invariants : public testing::TestWithParam<Compute> {
 protected:
  void SetUp() override {
    FASTKV_REQUIRE_FILE(stories());
    engine_ = std::make_unique<Engine>(engine_options(stories(), GetParam()));
    engine_->load();
  }
  RunResult run(const MethodOptions& method, std::int64_t n, int n_predict = 12) {
    return engine_->run(some_prompt(n), greedy(method, n_predict));
  }
  std::unique_ptr<Engine> engine_;
};

// 1: with TSP off the first token's logits are those of full attention, whatever the budget.
TEST_P(Invariants, FirstLogitsEqualFullWithoutTsp) {
  const RunResult whole = run(full(), 300);
  MethodOptions by_rate = fastkv();
  by_rate.tsp_rate = 1.0;
  by_rate.retention = 0.05;
  MethodOptions by_count = fastkv();
  by_count.tsp_tokens = 300;
  by_count.kv_budget = 16;
  for (const MethodOptions& method : {by_rate, by_count}) {
    const RunResult compressed = run(method, 300);
    EXPECT_EQ(compressed.trace.first_logits, whole.trace.first_logits);
    EXPECT_FALSE(compressed.trace.tsp_layer);
    EXPECT_LT(compressed.trace.kv_bytes_f16, whole.trace.kv_bytes_f16 / 5);
  }
}

// 2: a budget above the prompt, or retention 1 with rate 1, is full attention throughout.
TEST_P(Invariants, WholeGenerationEqualsFullWithoutCompression) {
  const RunResult whole = run(full(), 300, 30);
  MethodOptions by_rate = fastkv();
  by_rate.tsp_rate = 1.0;
  by_rate.retention = 1.0;
  MethodOptions by_count = fastkv();  // a budget above the prompt skips TSP too
  by_count.kv_budget = 301;
  by_count.tsp_tokens = 50;
  for (const MethodOptions& method : {by_rate, by_count}) {
    const RunResult same = run(method, 300, 30);
    EXPECT_EQ(same.tokens, whole.tokens);
    EXPECT_EQ(same.trace.first_logits, whole.trace.first_logits);
    EXPECT_EQ(same.trace.kv_bytes_f16, whole.trace.kv_bytes_f16);
    for (std::size_t l = 0; l < whole.trace.layers.size(); ++l)
      EXPECT_EQ(same.trace.layers[l].kept, whole.trace.layers[l].kept);
  }
}

// 4: lengths, windows, order.
TEST_P(Invariants, CacheLengthsAndWindows) {
  for (std::int64_t n : {9, 77, 80, 81, 299, 300}) {
    MethodOptions method = fastkv();
    method.retention = 0.2;
    method.tsp_rate = 0.5;
    const RunResult result = run(method, n, 2);
    const std::int64_t before = std::max<std::int64_t>(std::int64_t(double(n) * 0.2), 8);
    const std::int64_t tokens = std::max<std::int64_t>(std::int64_t(double(n) * 0.5), 8);
    const std::int64_t after = std::min(tokens, std::max<std::int64_t>(std::int64_t(double(tokens) * (0.2 / 0.5)), 8));
    ASSERT_TRUE(result.trace.tsp_layer);
    EXPECT_EQ(*result.trace.tsp_layer, 1);
    ASSERT_EQ(std::int64_t(result.trace.tsp_kept.size()), tokens);
    EXPECT_TRUE(std::is_sorted(result.trace.tsp_kept.begin(), result.trace.tsp_kept.end()));
    EXPECT_EQ(result.trace.next_position, n);
    auto ends_with_window = [&](const std::vector<std::int32_t>& kept) {
      ASSERT_GE(kept.size(), 8u);
      for (int i = 0; i < 8; ++i) EXPECT_EQ(kept[kept.size() - 8 + std::size_t(i)], n - 8 + i);
    };
    ends_with_window(result.trace.tsp_kept);
    for (std::size_t l = 0; l < result.trace.layers.size(); ++l) {
      const LayerTrace& layer = result.trace.layers[l];
      EXPECT_EQ(layer.tokens_in, l <= 1 ? n : tokens);
      EXPECT_EQ(layer.kept.size(), std::size_t(engine_->info().n_head_kv));
      for (const auto& kept : layer.kept) {
        EXPECT_EQ(std::int64_t(kept.size()), l <= 1 ? before : after) << "layer " << l << ", prompt " << n;
        EXPECT_TRUE(std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) == kept.end());
        ends_with_window(kept);
        if (l > 1) {
          EXPECT_TRUE(
              std::includes(result.trace.tsp_kept.begin(), result.trace.tsp_kept.end(), kept.begin(), kept.end()));
        }
      }
    }
    EXPECT_EQ(result.trace.kv_bytes_f16, std::size_t(2 * before + 3 * after) *
                                             std::size_t(engine_->info().n_head_kv * engine_->info().head_dim) * 4);
  }
}

// 7: S1 and S2 change nothing but the work.
TEST_P(Invariants, ShortcutsAreLossless) {
  MethodOptions with = fastkv();
  with.retention = 0.2;
  with.tsp_rate = 0.4;
  MethodOptions without = with;
  without.shortcuts = false;
  MethodOptions full_without = full();
  full_without.shortcuts = false;
  const std::int64_t n = 300, t = 120;
  const RunResult a = run(with, n), b = run(without, n), c = run(full(), n), d = run(full_without, n);
  EXPECT_EQ(a.trace.first_logits, b.trace.first_logits);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.trace.tsp_kept, b.trace.tsp_kept);
  for (std::size_t l = 0; l < a.trace.layers.size(); ++l) EXPECT_EQ(a.trace.layers[l].kept, b.trace.layers[l].kept);
  EXPECT_EQ(c.trace.first_logits, d.trace.first_logits);
  EXPECT_EQ(c.tokens, d.tokens);
  // N = 5, TSP layer 1: rows whose attention and MLP were computed (spec/methods.md 4, below the table).
  EXPECT_EQ(a.stats.token_layers, 1 * n + 3 * t + 1);
  EXPECT_EQ(b.stats.token_layers, 2 * n + 3 * t);
  EXPECT_EQ(c.stats.token_layers, 4 * n + 1);
  EXPECT_EQ(d.stats.token_layers, 5 * n);
}

// S3: the last row of the logits of all positions is what is computed for the last position alone.
TEST_P(Invariants, LastRowOfAllLogits) {
  const RunResult one = run(full(), 130, 1);
  RunOptions options = greedy(full(), 1);
  options.all_logits = true;
  const RunResult all = engine_->run(some_prompt(130), options);
  const std::size_t v = std::size_t(engine_->info().n_vocab);
  ASSERT_EQ(all.all_logits.size(), 130 * v);
  for (const auto& [token, logit] : one.trace.first_logits)
    EXPECT_EQ(all.all_logits[129 * v + std::size_t(token)], logit) << "token " << token;
}

// S7: TSP scores shared with the cache's selection, or computed again for a window given apart, choose the same.
// A window of its own makes the engine score twice; the cache's window then does not matter to what is propagated.
TEST_P(Invariants, SharedScoresChooseTheSame) {
  MethodOptions shared = fastkv();
  shared.retention = 0.3;
  shared.tsp_rate = 0.4;
  MethodOptions apart = shared;
  apart.window = 16;
  apart.tsp_window = 8;
  const RunResult a = run(shared, 200, 1), b = run(apart, 200, 1);
  EXPECT_EQ(a.trace.tsp_kept, b.trace.tsp_kept);
  EXPECT_EQ(a.trace.first_logits, b.trace.first_logits);
}

// A second run on the same engine starts from nothing.
TEST_P(Invariants, RunsDoNotInfluenceOneAnother) {
  MethodOptions method = fastkv();
  method.retention = 0.2;
  const RunResult first = run(method, 211);
  run(full(), 300);
  const RunResult second = run(method, 211);
  EXPECT_EQ(first.trace.first_logits, second.trace.first_logits);
  EXPECT_EQ(first.tokens, second.tokens);
}

INSTANTIATE_TEST_SUITE_P(Compute, Invariants, testing::Values(Compute::f32, Compute::bf16, Compute::int8),
                         [](const auto& param) {
                           return param.param == Compute::f32 ? "f32" : param.param == Compute::bf16 ? "bf16" : "int8";
                         });

// 8: the truncation table, through the public plan.
TEST(TruncationTable, PlannedLengths) {
  FASTKV_REQUIRE_FILE(stories());
  const Engine engine(engine_options(stories(), Compute::f32));
  struct Row {
    std::int64_t length, at_tenth, tokens_at_fifth, after;
  };
  const Row rows[] = {{8192, 819, 1638, 819}, {32768, 3276, 6553, 3276}, {131072, 13107, 26214, 13107}};
  for (const Row& row : rows) {
    MethodOptions method = fastkv();
    method.retention = 0.1;
    method.tsp_rate = 0.2;
    const RunPlan plan = engine.plan(row.length, greedy(method, 1, int(row.length) + 1));
    EXPECT_EQ(plan.layers[0].kept, row.at_tenth);
    EXPECT_EQ(plan.layers[1].kept, row.at_tenth);
    EXPECT_EQ(plan.layers[1].tokens_out, row.tokens_at_fifth);
    EXPECT_EQ(plan.layers[2].tokens_in, row.tokens_at_fifth);
    EXPECT_EQ(plan.layers[2].kept, row.after);
  }
  // int(79·0.1) = 7 lies below the window of 8, which clamps it; int(80·0.1) = 8 does not.
  MethodOptions method = fastkv();
  method.retention = 0.1;
  method.window = 4;
  EXPECT_EQ(engine.plan(79, greedy(method, 1, 512)).layers[0].kept, 7);
  EXPECT_EQ(engine.plan(80, greedy(method, 1, 512)).layers[0].kept, 8);
  method.window = 8;
  EXPECT_EQ(engine.plan(79, greedy(method, 1, 512)).layers[0].kept, 8);
  // 0.3/0.2 = 1.4999999999999998 and 0.15/0.2 = 0.7499999999999999 in double.
  method.retention = 0.15;
  EXPECT_EQ(engine.plan(1000, greedy(method, 1, 1001)).layers[2].kept, 149);
  method.retention = 0.3;
  EXPECT_EQ(engine.plan(1000, greedy(method, 1, 1001)).layers[2].kept, 200);
}

}  // namespace
}  // namespace fastkv::test
