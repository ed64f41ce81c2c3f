// Lengths of the methods that fastkv is compared with, as pure numbers: the figures of spec/methods.md 2.4-2.8 and 7.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "fastkv/error.hpp"
#include "prefill/methods/headkv.hpp"
#include "prefill/plan.hpp"
#include "reference/oracle.hpp"
#include "support/head_budgets.hpp"

namespace fastkv::test {
namespace {

/// Llama-3.1-8B's heads.
ModelConfig model_of(int n_layer) {
  ModelConfig config;
  config.n_layer = n_layer;
  config.n_head = 32;
  config.n_head_kv = 8;
  return config;
}

RunPlan plan_of(const MethodParams& params, int n_layer, std::int64_t n_prompt) {
  RunPlan plan;
  plan.method = params;
  plan.n_prompt = n_prompt;
  plan_layers(plan, model_of(n_layer));
  return plan;
}

std::vector<std::int64_t> kept_of(const RunPlan& plan) {
  std::vector<std::int64_t> out;
  for (const LayerPlan& layer : plan.layers) out.push_back(layer.kept);
  return out;
}

MethodParams with_budget(MethodName method, int n_layer, std::int64_t rows) {
  MethodParams m = method_defaults(method, n_layer);
  m.proportional = false;
  m.kv_budget = rows;
  return m;
}

using Lengths = std::vector<std::int64_t>;

// 2.7: the sequences of n_ℓ for Llama at 7950 tokens.
TEST(PyramidInferPlan, TheRecurrenceOfThePaper) {
  MethodParams m = method_defaults(MethodName::pyramidinfer, 32);
  const auto entering = [&](std::int64_t n_prompt) {
    Lengths out;
    for (const LayerPlan& layer : plan_of(m, 32, n_prompt).layers) out.push_back(layer.tokens_in);
    return out;
  };
  Lengths n = entering(7950);
  const Lengths at = {n[0], n[4], n[8], n[12], n[16], n[20], n[24], n[28], n[31]};
  EXPECT_EQ(at, (Lengths{7950, 7885, 7344, 6057, 4342, 2882, 2052, 1721, 1683}));

  m.recent = m.delta = 0.01;
  n = entering(7950);
  EXPECT_EQ((Lengths{n[0], n[1], n[2], n[16], n[30]}), (Lengths{7950, 7950, 7931, 418, 157}));
  EXPECT_EQ(n[31], 157) << "the guard keeps what is left once the target falls to 64";

  // mean share of rows that are cached
  struct Set {
    double recent, delta;
    std::int64_t length;
    double share;
  };
  for (const Set& set : {Set{0.01, 0.01, 1000, 37.1},
                         {0.01, 0.01, 7950, 34.0},
                         {0.01, 0.01, 131072, 33.7},
                         {0.2, 0.3, 1000, 53.5},
                         {0.2, 0.3, 7950, 49.9},
                         {0.2, 0.3, 131072, 49.6},
                         {0.2, 0.7, 1000, 60.6},
                         {0.2, 0.7, 7950, 59.6},
                         {0.2, 0.7, 131072, 59.6}}) {
    m.recent = set.recent;
    m.delta = set.delta;
    const Lengths lengths = entering(set.length);
    const double mean = double(std::accumulate(lengths.begin(), lengths.end(), std::int64_t(0))) / 32;
    EXPECT_NEAR(100 * mean / double(set.length), set.share, 0.05) << set.recent << ' ' << set.length;
  }
}

TEST(PyramidInferPlan, ShortPromptsAndNoDecay) {
  MethodParams m = method_defaults(MethodName::pyramidinfer, 8);
  for (std::int64_t n : {1, 2, 5, 64, 65}) {
    for (double recent : {0.01, 0.2, 1.0}) {
      m.recent = recent;
      for (const LayerPlan& layer : plan_of(m, 8, n).layers)
        EXPECT_EQ(layer.kept, n) << "no more than 64 to choose from";
    }
  }
  m.delta = 1;
  for (const LayerPlan& layer : plan_of(m, 8, 5000).layers) EXPECT_EQ(layer.kept, 5000);
}

// 2.8: min, median and max of the caps, for any table whose shares have these three.
TEST(HeadKvPlan, CapsOfTheTable) {
  std::vector<double> importance(1024, 483846.0 / 423);  // Σ = 518144, the pool at C = 512
  std::fill_n(importance.begin() + 1, 100, 0.0);
  std::fill_n(importance.begin() + 300, 500, 53.0);
  importance[0] = 7798;
  const HeadBudgets file(32, 32, importance);
  const auto caps = [&](std::int64_t c) {
    MethodParams m = with_budget(MethodName::headkv, 32, c);
    m.head_shares = read_head_shares(file.path(), 32, 32);
    Lengths out;
    for (const LayerPlan& layer : plan_of(m, 32, 131072).layers)
      for (std::int64_t rows : layer.head_kept) out.push_back(rows - m.window);
    EXPECT_EQ(out.size(), 1024u);
    std::sort(out.begin(), out.end());
    EXPECT_NEAR(double(std::accumulate(out.begin(), out.end(), std::int64_t(0))), double(1024 * c), 1024.0 / 2);
    return Lengths{out.front(), out[512], out.back()};
  };
  EXPECT_EQ(caps(512), (Lengths{6, 59, 7804}));
  EXPECT_EQ(caps(128), (Lengths{2, 15, 1944}));
}

TEST(HeadKvPlan, AUniformTableIsSnapKvWithTheWindowOnTop) {
  for (Granularity granularity : {Granularity::query_head, Granularity::kv_head}) {
    for (std::int64_t n : {19, 20, 27, 28, 29, 500}) {
      MethodParams heads = with_budget(MethodName::headkv, 4, 20), snap = with_budget(MethodName::snapkv, 4, 28);
      heads.granularity = snap.granularity = granularity;
      heads.head_shares.assign(4 * 32, 1.0 / 128);
      const RunPlan a = plan_of(heads, 4, n), b = plan_of(snap, 4, n);
      EXPECT_EQ(a.stored_heads, granularity == Granularity::kv_head ? 8 : 32);
      EXPECT_EQ(kept_of(a), kept_of(b)) << n;
      for (const LayerPlan& layer : a.layers)
        for (std::int64_t rows : layer.head_kept) EXPECT_EQ(rows, std::min<std::int64_t>(n, 28));
    }
  }
}

TEST(HeadKvPlan, TheMeanOfAGroup) {
  MethodParams m = with_budget(MethodName::headkv, 1, 101);  // base 100, pool 3200, 1 for each
  m.granularity = Granularity::kv_head;
  m.head_shares.assign(32, 0.0);
  m.head_shares[0] = 10.0 / 3200;
  m.head_shares[1] = m.head_shares[2] = m.head_shares[3] = 1.0 / 3200;
  m.head_shares[4] = 1 - 13.0 / 3200;
  const RunPlan plan = plan_of(m, 1, 10000);
  // caps 11, 2, 2, 2 and 3188, 1, 1, 1 and 1 for the rest; 8 for the window
  EXPECT_EQ(plan.layers[0].head_kept, (Lengths{4 + 8, 798 + 8, 9, 9, 9, 9, 9, 9}));
}

// 7: b = C − w rows on average, and the window.
TEST(PyramidKvPlan, BudgetsFallFromLayerToLayer) {
  const MethodParams m = with_budget(MethodName::pyramidkv, 4, 100);
  EXPECT_EQ(kept_of(plan_of(m, 4, 1000)), (Lengths{188, 130, 72, 14}));   // 92 → max 180, min 4, step 58
  EXPECT_EQ(kept_of(plan_of(m, 4, 186)), (Lengths{186, 129, 72, 15}));    // max is all there is: 178, min 6, step 57
  EXPECT_EQ(kept_of(plan_of(m, 4, 183)), (Lengths{100, 100, 100, 100}));  // below 2b: SnapKV
  EXPECT_EQ(kept_of(plan_of(m, 4, 99)), (Lengths{99, 99, 99, 99}));
  EXPECT_EQ(kept_of(plan_of(with_budget(MethodName::pyramidkv, 1, 100), 1, 1000)), (Lengths{188}));
}

TEST(GemFilterPlan, APassThatChoosesAndAPassOfWhatItChose) {
  MethodParams m = method_defaults(MethodName::gemfilter, 32);
  RunPlan plan = plan_of(m, 32, 8192);
  ASSERT_EQ(plan.filter_layers.size(), 16u);
  for (const LayerPlan& layer : plan.filter_layers) EXPECT_EQ(layer.tokens_in, 8192);
  EXPECT_EQ(plan.filter_layers.back().tokens_out, 819);
  for (const LayerPlan& layer : plan.layers) {
    EXPECT_EQ(layer.tokens_in, 819);
    EXPECT_EQ(layer.kept, 819);
  }
  EXPECT_EQ(plan.stored_heads, 8);
  EXPECT_EQ(plan_of(m, 32, 3).layers[0].tokens_in, 1) << "one token at least";
  m = with_budget(MethodName::gemfilter, 32, 500);
  EXPECT_TRUE(plan_of(m, 32, 500).filter_layers.empty()) << "every token would be chosen";
  EXPECT_EQ(plan_of(m, 32, 501).filter_layers.size(), 16u);
}

// 3: clamps.
TEST(RivalPlans, LengthsAreClamped) {
  for (MethodName method : {MethodName::snapkv, MethodName::h2o, MethodName::pyramidkv, MethodName::adakv}) {
    const MethodParams m = method_defaults(method, 2);
    EXPECT_EQ(plan_of(m, 2, 1).layers[0].kept, 1);
    EXPECT_EQ(plan_of(m, 2, 8).layers[0].kept, 8);
    EXPECT_EQ(plan_of(m, 2, 9).layers[0].kept, 8) << name(method);
    EXPECT_EQ(plan_of(m, 2, 79).layers[0].kept, 8);
    EXPECT_EQ(plan_of(m, 2, 9).stored_heads, 32);
  }
  EXPECT_EQ(plan_of(method_defaults(MethodName::snapkv, 2), 2, 32768).layers[0].kept, 3276);
  MethodParams m = method_defaults(MethodName::streamingllm, 2);
  for (std::int64_t n : {1, 4, 5, 6, 49, 59, 60}) {
    const std::int64_t expected = std::min(n, std::max<std::int64_t>(5, n / 10));
    EXPECT_EQ(plan_of(m, 2, n).layers[0].kept, expected) << n;
  }
  m = method_defaults(MethodName::tova, 2);
  EXPECT_EQ(plan_of(m, 2, 1).layers[0].kept, 1);
  EXPECT_EQ(plan_of(m, 2, 9).layers[0].kept, 1);
  EXPECT_EQ(plan_of(m, 2, 30).layers[0].kept, 3);
}

TEST(HeadShares, FilesThatAreWrong) {
  const auto message = [](const std::string& text) {
    const HeadBudgets file(0, 0, {});
    std::ofstream(file.path()) << text;
    try {
      read_head_shares(file.path(), 1, 2);
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_EQ(what.find('\n'), std::string::npos);
      EXPECT_EQ(what.find(file.path()), 0u) << what;
      return what.substr(std::min(what.size(), file.path().size() + 2));
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message("{\"0-0\": [1, 3], \"0-1\": [2]}"), "accepted");
  const std::string table = "expected a JSON object {\"layer-head\": [values]}, found ";
  EXPECT_EQ(message("{\"0-0\": [1"), table + "text that is not JSON");
  EXPECT_EQ(message("[1, 2]"), table + "array");
  EXPECT_EQ(message("{\"0-0\": [1]}"), "expected an entry for each of 1 layers and 2 heads, found none for \"0-1\"");
  const std::string list = "\"0-1\": expected a list of numbers that is not empty nor negative in sum, found ";
  EXPECT_EQ(message("{\"0-0\": [1], \"0-1\": []}"), list + "[]");
  EXPECT_EQ(message("{\"0-0\": [1], \"0-1\": 2}"), list + "2");
  EXPECT_EQ(message("{\"0-0\": [1], \"0-1\": [1, \"x\"]}"), list + "[1,\"x\"]");
  EXPECT_EQ(message("{\"0-0\": [1], \"0-1\": [-1]}"), list + "[-1]");
  EXPECT_EQ(message("{\"0-0\": [1], \"0-1\": [1], \"1-0\": [1]}"), "expected 2 entries (1 layers of 2 heads), found 3");
  EXPECT_EQ(message("{\"0-0\": [0], \"0-1\": [0]}"), "expected some head above 0, found all 0");
  EXPECT_THROW(read_head_shares("/nowhere/heads.json", 1, 2), Error);
  const HeadBudgets file(1, 2, {2, 6});
  EXPECT_EQ(read_head_shares(file.path(), 1, 2), (std::vector<double>{0.25, 0.75}));
}

}  // namespace
}  // namespace fastkv::test
