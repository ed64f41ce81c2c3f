// The invariants of spec/methods.md 6 for the methods that fastkv is compared with, on a real tiny model.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "fastkv/error.hpp"
#include "support/engine_run.hpp"
#include "support/fixtures.hpp"
#include "support/head_budgets.hpp"
#include "support/model_file.hpp"

namespace fastkv::test {
namespace {

using enum MethodName;
constexpr int kLayers = 5, kHeads = 8;  // of the model

std::string stories() { return (fixtures() / "models" / "stories260K-f32.gguf").string(); }

std::vector<std::int32_t> some_prompt(std::int64_t n) {
  std::vector<std::int32_t> ids = {1};
  for (std::int64_t i = 1; i < n; ++i) ids.push_back(std::int32_t(259 + (i * i * 7 + i / 9) % 250));
  return ids;
}

MethodOptions of(MethodName method) {
  MethodOptions o;
  o.method = method;
  o.min_prompt = 0;
  return o;
}

std::string test_name(Compute compute) {
  return compute == Compute::f32 ? "f32" : compute == Compute::bf16 ? "bf16" : "int8";
}

class MethodInvariants : public testing::TestWithParam<Compute> {
 protected:
  void SetUp() override {
    FASTKV_REQUIRE_FILE(stories());
    engine_ = std::make_unique<Engine>(engine_options(stories(), GetParam(), 1));
    engine_->load();
    std::vector<double> importance(kLayers * kHeads);
    for (std::size_t i = 0; i < importance.size(); ++i) importance[i] = 1 + double(i * 7 % 11);
    table_ = std::make_unique<HeadBudgets>(kLayers, kHeads, importance);
  }
  RunResult run(const MethodOptions& method, std::int64_t n, int n_predict = 8) {
    return engine_->run(some_prompt(n), greedy(method, n_predict));
  }
  /// Every way to choose cache rows that leaves the prompt's own pass alone.
  std::vector<MethodOptions> after_prefill() const {
    std::vector<MethodOptions> out;
    for (MethodName method : {snapkv, streamingllm, h2o, headkv, pyramidkv, adakv, tova}) {
      out.push_back(of(method));
      if (method == headkv) out.back().head_budgets = table_->path();
      if (!reads(method, "--granularity")) continue;
      out.push_back(out.back());
      out.back().granularity = Granularity::kv_head;
    }
    out.push_back(of(h2o));
    out.back().h2o_mask = H2oMask::reference;
    return out;
  }
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<HeadBudgets> table_;
};

void expect_same_decisions(const RunResult& a, const RunResult& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.trace.selected, b.trace.selected);
  ASSERT_EQ(a.trace.layers.size(), b.trace.layers.size());
  for (std::size_t l = 0; l < a.trace.layers.size(); ++l)
    EXPECT_EQ(a.trace.layers[l].kept, b.trace.layers[l].kept) << "layer " << l;
}

// 1: what is stored does not touch the first token.
TEST_P(MethodInvariants, FirstLogitsEqualFull) {
  const RunResult whole = run(of(full), 300);
  for (MethodOptions method : after_prefill()) {
    method.retention = 0.15;
    const RunResult found = run(method, 300);
    EXPECT_EQ(found.trace.first_logits, whole.trace.first_logits) << name(*method.method);
    EXPECT_LT(found.trace.kv_bytes_f16, whole.trace.kv_bytes_f16 * 2 / 5);
  }
}

// 1, 2: with nothing to drop every method is full attention, token for token.
TEST_P(MethodInvariants, WholeGenerationEqualsFullWithoutCompression) {
  const RunResult whole = run(of(full), 200, 20);
  std::vector<MethodOptions> methods = after_prefill();
  methods.push_back(of(gemfilter));
  for (const MethodOptions& method : methods) {
    MethodOptions above = method, all = method;
    above.kv_budget = 201;
    all.retention = 1;
    for (const MethodOptions& one : {above, all}) {
      SCOPED_TRACE(std::string(name(*one.method)) + (one.kv_budget ? ", budget above the prompt" : ", retention 1"));
      // a head that HeadKV's table holds for less gets less than its share of what there is
      if (one.method == headkv && !one.kv_budget) continue;
      const RunResult same = run(one, 200, 20);
      EXPECT_EQ(same.trace.first_logits, whole.trace.first_logits);
      EXPECT_EQ(same.tokens, whole.tokens);
      EXPECT_EQ(same.trace.next_position, 200);
      EXPECT_TRUE(same.trace.selected.empty());
      for (const LayerTrace& layer : same.trace.layers)
        for (const auto& kept : layer.kept) EXPECT_EQ(kept, whole.trace.layers[0].kept[0]);
    }
  }
  MethodOptions no_decay = of(pyramidinfer);
  no_decay.delta = 1;
  const RunResult same = run(no_decay, 200, 20);
  EXPECT_EQ(same.trace.first_logits, whole.trace.first_logits);
  expect_same_decisions(same, whole);
}

// 4, 6: lengths, windows, order, positions.
TEST_P(MethodInvariants, CacheLengthsAndWindows) {
  for (std::int64_t n : {9, 79, 80, 300}) {
    const std::int64_t c = std::max<std::int64_t>(std::int64_t(double(n) * 0.1), 8);
    for (const MethodOptions& method : after_prefill()) {
      SCOPED_TRACE(std::string(name(*method.method)) + ", prompt " + std::to_string(n));
      const RunResult found = run(method, n, 2);
      EXPECT_EQ(found.trace.next_position, n);
      const bool per_query_head =
          *method.method != streamingllm && *method.method != tova && method.granularity != Granularity::kv_head;
      const std::int64_t last = *method.method == tova ? 1 : *method.method == streamingllm ? 0 : 8;
      std::size_t rows = 0;
      for (const LayerTrace& layer : found.trace.layers) {
        EXPECT_EQ(layer.tokens_in, n);
        EXPECT_EQ(layer.kept.size(), per_query_head ? 8u : 4u);
        for (const auto& kept : layer.kept) {
          rows += kept.size();
          EXPECT_TRUE(std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) == kept.end());
          EXPECT_GE(kept.front(), 0);
          EXPECT_LT(kept.back(), n);
          for (std::int64_t i = 0; i < last; ++i)
            EXPECT_EQ(kept[kept.size() - 1 - std::size_t(i)], n - 1 - i) << "of the window";
          if (*method.method == snapkv || *method.method == h2o) {
            EXPECT_EQ(std::int64_t(kept.size()), c);
          }
          if (*method.method == streamingllm) {
            std::vector<std::int32_t> ends = {0, 1, 2, 3};
            for (std::int64_t i = n - (std::max<std::int64_t>(5, n / 10) - 4); i < n; ++i)
              ends.push_back(std::int32_t(i));
            EXPECT_EQ(kept, ends);
          }
          if (*method.method == tova) {
            EXPECT_EQ(kept, found.trace.layers[std::size_t(&layer - found.trace.layers.data())].kept[0]);
          }
        }
      }
      EXPECT_EQ(found.trace.kv_bytes_f16, rows * 8 * 4);
    }
  }
  MethodOptions gem = of(gemfilter);
  gem.retention = 0.3;
  const RunResult found = run(gem, 300, 2);
  EXPECT_EQ(found.trace.next_position, 90);
  EXPECT_EQ(found.trace.selected.size(), 90u);
  EXPECT_TRUE(std::is_sorted(found.trace.selected.begin(), found.trace.selected.end()));
  std::vector<std::int32_t> renumbered(90);
  std::iota(renumbered.begin(), renumbered.end(), 0);
  for (const LayerTrace& layer : found.trace.layers)
    for (const auto& kept : layer.kept) EXPECT_EQ(kept, renumbered);
  // the second pass is a prompt like any other
  std::vector<std::int32_t> chosen;
  const std::vector<std::int32_t> prompt = some_prompt(300);
  for (std::int32_t i : found.trace.selected) chosen.push_back(prompt[std::size_t(i)]);
  const RunResult alone = engine_->run(chosen, greedy(of(full), 2));
  EXPECT_EQ(alone.trace.first_logits, found.trace.first_logits);
  EXPECT_EQ(alone.tokens, found.tokens);
}

// 7: S2, S4 and S5 change nothing but the work.
TEST_P(MethodInvariants, ShortcutsAreLossless) {
  const std::int64_t n = 300;
  std::vector<MethodOptions> methods = after_prefill();
  methods.push_back(of(gemfilter));
  methods.push_back(of(pyramidinfer));
  for (MethodOptions& with : methods) {
    SCOPED_TRACE(name(*with.method));
    if (*with.method != pyramidinfer) with.retention = 0.2;
    MethodOptions without = with;
    without.shortcuts = false;
    const RunResult a = run(with, n), b = run(without, n);
    EXPECT_EQ(a.trace.first_logits, b.trace.first_logits);
    expect_same_decisions(a, b);
    std::int64_t on = 0, off = 0;  // rows whose attention and MLP are computed
    for (std::size_t l = 0; l < b.trace.layers.size(); ++l) {
      off += b.trace.layers[l].tokens_in;
      on += l + 1 < b.trace.layers.size() ? b.trace.layers[l + 1].tokens_in : 1;
    }
    if (*with.method == gemfilter) {  // filter layer 1: pass 1 stops inside it
      on += n;
      off += 2 * n;
    }
    EXPECT_EQ(a.stats.token_layers, on);
    EXPECT_EQ(b.stats.token_layers, off);
  }
}

// 2.8: a uniform table is SnapKV with the window on top of the budget.
TEST_P(MethodInvariants, HeadKvWithAUniformTableIsSnapKv) {
  const HeadBudgets uniform(kLayers, kHeads, std::vector<double>(kLayers * kHeads, 3.0));
  for (Granularity granularity : {Granularity::query_head, Granularity::kv_head}) {
    MethodOptions heads = of(headkv), snap = of(snapkv);
    heads.head_budgets = uniform.path();
    heads.kv_budget = 40;
    snap.kv_budget = 48;
    heads.granularity = snap.granularity = granularity;
    for (std::int64_t n : {39, 40, 47, 48, 49, 200}) {
      const RunResult a = run(heads, n), b = run(snap, n);
      EXPECT_EQ(a.trace.first_logits, b.trace.first_logits);
      expect_same_decisions(a, b);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Compute, MethodInvariants, testing::Values(Compute::f32, Compute::bf16, Compute::int8),
                         [](const auto& param) { return test_name(param.param); });

// 3: where every query head has a key/value head of its own, FastKV without TSP chooses like SnapKV.
TEST(OneQueryHeadPerGroup, FastKvWithoutTspIsSnapKv) {
  const RandomModel model({"g1", 3, 64, 96, 4, 4, 16, 301, {DType::f32}, false, false, false}, 5);
  const ModelFile file(model);
  for (Compute compute : {Compute::f32, Compute::bf16, Compute::int8}) {
    Engine engine(engine_options(file.path(), compute, 1));
    engine.load();
    MethodOptions fast = of(fastkv), snap = of(snapkv);
    fast.tsp_rate = 1;
    fast.retention = snap.retention = 0.3;
    const RunResult a = engine.run(model.prompt(130), greedy(fast, 8)),
                    b = engine.run(model.prompt(130), greedy(snap, 8));
    EXPECT_EQ(a.trace.first_logits, b.trace.first_logits) << test_name(compute);
    EXPECT_EQ(a.trace.kv_bytes_f16, b.trace.kv_bytes_f16);
    expect_same_decisions(a, b);
  }
}

// Section 3: lengths are clamped, nothing crashes from one token up.
TEST(ShortPrompts, EveryMethodFromOneToken) {
  FASTKV_REQUIRE_FILE(stories());
  Engine engine(engine_options(stories(), Compute::f32, 1));
  engine.load();
  const HeadBudgets uniform(kLayers, kHeads, std::vector<double>(kLayers * kHeads, 1.0));
  using Change = std::pair<const char*, std::function<void(MethodOptions&)>>;
  std::vector<Change> changes = {
      {"defaults", [](MethodOptions&) {}},
      {"window 1", [](MethodOptions& o) { o.window = 1; }},
      {"kernel 1", [](MethodOptions& o) { o.kernel = 1; }},
      {"kernel 31", [](MethodOptions& o) { o.kernel = 31, o.pooling = Pooling::avg; }},
      {"sinks 5", [](MethodOptions& o) { o.sinks = 5; }},
      {"sinks 5, window 1", [](MethodOptions& o) { o.sinks = 5, o.window = 1; }},
      {"retention 0.01", [](MethodOptions& o) { o.retention = 0.01; }},
      {"retention 1", [](MethodOptions& o) { o.retention = 1; }},
      {"recent 1", [](MethodOptions& o) { o.recent = 1, o.delta = 0.01; }},
      {"layer 0", [](MethodOptions& o) { o.tsp_layer = o.filter_layer = 0; }},
      {"last layer", [](MethodOptions& o) { o.tsp_layer = o.filter_layer = kLayers - 1; }},
      {"kv_head", [](MethodOptions& o) { o.granularity = Granularity::kv_head; }},
  };
  for (std::int64_t rows : {1, 2, 5, 8, 9, 10, 20})
    changes.push_back({"budget", [rows](MethodOptions& o) { o.kv_budget = rows, o.window = 1; }});
  for (MethodName method : all_methods()) {
    for (const auto& [what, change] : changes) {
      MethodOptions all = of(fastkv);
      change(all);
      MethodOptions options = options_for(method, all);
      if (method == headkv) options.head_budgets = uniform.path();
      for (std::int64_t n : {1, 2, 7, 8, 9, 10, 13, 14}) {
        SCOPED_TRACE(std::string(name(method)) + ", " + what + ", prompt " + std::to_string(n));
        RunResult found;
        try {
          found = engine.run(some_prompt(n), greedy(options, 3));
        } catch (const Error& error) {
          ASSERT_EQ(error.code(), ErrorCode::invalid_option) << error.what();
          ASSERT_NE(std::string(error.what()).find("leaves no room"), std::string::npos) << error.what();
          continue;
        }
        EXPECT_EQ(found.tokens.size(), 3u);
        EXPECT_EQ(found.plan.method.method, method);
        const std::int64_t w = options.window.value_or(8), sinks = options.sinks.value_or(0);
        const std::int64_t c = options.kv_budget.value_or(std::int64_t(double(n) * options.retention.value_or(0.1)));
        for (const LayerTrace& layer : found.trace.layers) {
          for (const auto& kept : layer.kept) {
            ASSERT_GE(kept.size(), 1u);
            ASSERT_LE(std::int64_t(kept.size()), n);
            std::int64_t expected = std::int64_t(kept.size());
            if (method == snapkv || method == h2o) expected = n <= w || n < c ? n : std::min(n, std::max(c, w + sinks));
            if (method == tova) expected = std::min(n, std::max(c, 1 + sinks));
            if (method == full || method == pyramidinfer) expected = n;
            EXPECT_EQ(std::int64_t(kept.size()), expected);
          }
        }
        if (HasFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace fastkv::test
