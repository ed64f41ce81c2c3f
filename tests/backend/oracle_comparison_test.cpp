// The backend against the oracle: every ISA level of this CPU, every arithmetic, both stages, on random small shapes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <sstream>

#include "backend/cases.hpp"
#include "support/prefill_run.hpp"
#include "support/spread.hpp"

namespace fastkv::test {
namespace {

constexpr int kFed = 3;  ///< decode steps
constexpr std::uint64_t kSeed = 20260811;

/// Share of a top-k choice: what was kept is exactly the best by the scores it was made from.
void expect_best(const std::vector<float>& scores, const std::vector<std::int32_t>& kept,
                 const std::vector<std::int32_t>& positions, std::int64_t sinks, std::int64_t window) {
  const std::int64_t n = std::int64_t(positions.size()), k = std::int64_t(kept.size());
  const std::int64_t first = std::min(sinks, k - window);
  const std::vector<double> rest(scores.begin() + first, scores.begin() + (n - window));
  std::vector<std::int32_t> expected;
  for (std::int64_t i = 0; i < first; ++i) expected.push_back(positions[std::size_t(i)]);
  for (std::int32_t i : top_indices(rest, k - window - first)) expected.push_back(positions[std::size_t(i + first)]);
  for (std::int64_t i = n - window; i < n; ++i) expected.push_back(positions[std::size_t(i)]);
  EXPECT_EQ(kept, expected);
}

/// Dominance (spec/methods.md 6.5) under scores computed elsewhere: nothing dropped beats anything kept by more than
/// both may be off; rows beyond the scored ones (a window) and sinks are kept whatever they score.
void expect_dominance(const std::vector<double>& scores, const std::vector<std::int32_t>& kept,
                      const std::vector<std::int32_t>& positions, std::int64_t sinks, double log_bound) {
  std::vector<bool> is_kept(positions.size(), false);
  for (std::int32_t p : kept)
    is_kept[std::size_t(std::lower_bound(positions.begin(), positions.end(), p) - positions.begin())] = true;
  double worst_kept = INFINITY, best_dropped = 0;
  for (std::size_t j = 0; j < scores.size(); ++j) {
    if (!is_kept[j]) best_dropped = std::max(best_dropped, scores[j]);
    if (is_kept[j] && std::int64_t(j) >= sinks) worst_kept = std::min(worst_kept, scores[j]);
  }
  EXPECT_GE(std::log(worst_kept) + 2 * log_bound, std::log(best_dropped));
  for (std::size_t j = 0; j < is_kept.size(); ++j) {
    if (j >= scores.size() || std::int64_t(j) < sinks) {
      EXPECT_TRUE(is_kept[j]) << "row " << j << " of " << is_kept.size();
    }
  }
}

void compare_layer(const BackendLayer& found, const OracleLayer& exact, const MethodParams& method,
                   const Spread& spread, std::size_t l) {
  SCOPED_TRACE("layer " + std::to_string(l));
  EXPECT_EQ(found.positions, exact.positions);
  const double score_bound = kWorst * spread.score[l], row_bound = kWorst * spread.row[l];
  for (std::size_t k = 0; k < exact.kept.size(); ++k) {
    SCOPED_TRACE("key/value head " + std::to_string(k));
    ASSERT_EQ(found.keys[k].size(), found.kept[k].size());
    for (std::size_t i = 0; i < found.kept[k].size(); ++i) {
      EXPECT_LE(max_difference(found.keys[k][i], exact.keys[k][i]), row_bound) << "key of row " << i;
      EXPECT_LE(max_difference(found.values[k][i], exact.values[k][i]), row_bound) << "value of row " << i;
    }
    if (found.grouped.empty()) {
      EXPECT_EQ(found.kept[k], exact.positions) << "nothing was to be dropped";
      continue;
    }
    EXPECT_LE(max_log_difference(found.grouped[k], exact.grouped[k]), score_bound);
    expect_best(found.grouped[k], found.kept[k], found.positions, method.sinks, method.window);
    expect_dominance(exact.grouped[k], found.kept[k], found.positions, method.sinks, score_bound);
  }
  // Mass is a mean over window rows and heads of sums of scores: its relative error is at most theirs.
  if (found.coverage >= 0) {
    EXPECT_NEAR(found.coverage, *exact.coverage, score_bound + 1e-6);
  }
}

void compare_logits(const BackendRun& found, const OracleResult& exact, const Spread& spread) {
  EXPECT_LE(max_difference(found.logits, exact.logits), kWorst * spread.logits);
  EXPECT_LE(rms_difference(found.logits, exact.logits), kMean * spread.logits);
  for (std::size_t t = 0; t < exact.decode_logits.size(); ++t) {
    EXPECT_LE(max_difference(found.decode_logits[t], exact.decode_logits[t]), kWorst * spread.logits) << "step " << t;
    EXPECT_LE(rms_difference(found.decode_logits[t], exact.decode_logits[t]), kMean * spread.logits) << "step " << t;
  }
}

void compare_run(const BackendRun& found, const OracleResult& exact, const MethodParams& method, const Spread& spread) {
  for (std::size_t l = 0; l < exact.layers.size(); ++l) {
    compare_layer(found.layers[l], exact.layers[l], method, spread, l);
    const OracleLayer& layer = exact.layers[l];
    if (found.layers[l].propagation.empty()) continue;
    const double bound = kWorst * spread.score[l];
    EXPECT_LE(max_log_difference(found.layers[l].propagation, layer.propagation), bound);
    expect_best(found.layers[l].propagation, found.tsp_kept, layer.positions, method.sinks, method.tsp_window);
    expect_dominance(layer.propagation, found.tsp_kept, layer.positions, method.sinks, bound);
  }
  compare_logits(found, exact, spread);
}

/// A run whose decisions the oracle followed: as many rows as the oracle would keep, none better among the rest, and
/// the cache and the logits that follow from them.
void compare_rival(const BackendRun& found, const OracleResult& exact, const OracleResult& own,
                   const MethodParams& method, const Spread& spread, bool same_counts) {
  ASSERT_EQ(found.layers.size(), exact.layers.size());
  ASSERT_EQ(found.selected.size(), own.selected.size());
  if (!found.selected.empty()) {
    double worst_kept = INFINITY, best_dropped = -INFINITY;
    for (std::size_t j = 0; j < exact.filter_scores.size(); ++j) {
      const bool kept = std::binary_search(found.selected.begin(), found.selected.end(), std::int32_t(j));
      const double v = exact.filter_scores[j];
      (kept ? worst_kept : best_dropped) = kept ? std::min(worst_kept, v) : std::max(best_dropped, v);
    }
    EXPECT_GE(worst_kept + 2 * kWorst * spread.filter, best_dropped);
  }
  for (std::size_t l = 0; l < exact.layers.size(); ++l) {
    SCOPED_TRACE("layer " + std::to_string(l));
    const BackendLayer& layer = found.layers[l];
    const OracleLayer& expected = exact.layers[l];
    EXPECT_EQ(expected.tokens_in, own.layers[l].tokens_in);
    ASSERT_EQ(layer.kept.size(), own.layers[l].kept.size());
    const double score_bound = kWorst * spread.score[l], row_bound = kWorst * spread.row[l];
    for (std::size_t s = 0; s < layer.kept.size(); ++s) {
      SCOPED_TRACE("stored head " + std::to_string(s));
      if (same_counts) {
        EXPECT_EQ(layer.kept[s].size(), own.layers[l].kept[s].size());
      }
      EXPECT_EQ(layer.kept[s], expected.kept[s]);
      ASSERT_EQ(layer.keys[s].size(), layer.kept[s].size());
      for (std::size_t i = 0; i < layer.kept[s].size(); ++i) {
        EXPECT_LE(max_difference(layer.keys[s][i], expected.keys[s][i]), row_bound) << "key of row " << i;
        EXPECT_LE(max_difference(layer.values[s][i], expected.values[s][i]), row_bound) << "value of row " << i;
      }
      if (expected.grouped.empty()) {  // no choice, but for rows that entered by one
        if (method.method != MethodName::pyramidinfer) {
          EXPECT_EQ(layer.kept[s], own.layers[l].kept[s]);
        }
        continue;
      }
      expect_dominance(expected.grouped[s], layer.kept[s], expected.positions, method.sinks, score_bound);
    }
    if (!expected.propagation.empty())
      expect_dominance(expected.propagation, found.layers[l + 1].kept[0], expected.positions, 4, score_bound);
    if (layer.coverage >= 0 && expected.coverage) {
      EXPECT_NEAR(layer.coverage, *expected.coverage, score_bound + 1e-6);
    }
  }
  compare_logits(found, exact, spread);
}

std::vector<std::vector<std::vector<std::int32_t>>> kept_of(const OracleResult& result) {
  std::vector<std::vector<std::vector<std::int32_t>>> out;
  for (const OracleLayer& layer : result.layers) out.push_back(layer.kept);
  return out;
}

/// A loaded backend.
std::unique_ptr<Backend> backend_for(const RandomModel& model, simd::Isa isa, const Arithmetic& arithmetic,
                                     int threads) {
  EngineOptions options;
  options.threads = options.threads_batch = threads;
  options.isa = simd::name(isa);
  options.compute = arithmetic.compute;
  options.gemm = arithmetic.gemm;
  options.tile_rows = 16;
  std::unique_ptr<Backend> backend = make_backend(options, model.config, model.tensors);
  EXPECT_EQ(backend->info().isa, simd::name(isa));
  RunControl control;
  backend->load(
      model.tensors, [](const TensorView&) {}, control);
  return backend;
}

class OracleComparison : public testing::TestWithParam<std::tuple<RandomShape, Arithmetic>> {};

TEST_P(OracleComparison, EveryIsaAndBothStages) {
  const auto& [shape, arithmetic] = GetParam();
  const RandomModel model(shape, kSeed);
  const Oracle oracle(model.config, model.tensors);
  const Rounding rounding = rounding_of(arithmetic.compute);
  // One thread: any number gives the same bits (end_to_end/determinism_test.cpp), and thousands of tiny parallel
  // regions on a busy machine are mostly waiting.
  std::vector<std::unique_ptr<Backend>> backends;
  for (simd::Isa isa : isas()) backends.push_back(backend_for(model, isa, arithmetic, 1));
  std::size_t c = 0;
  for (const MethodCase& one : method_cases(shape.n_layer)) {
    // The exact arithmetic meets every case; what it showed of lengths and options need not be shown three more times.
    if (arithmetic.compute != Compute::f32 && c++ % 4 != 1) continue;
    const std::vector<std::int32_t> prompt = model.prompt(one.n);
    OracleRun run;
    run.method = one.method;
    run.n_generate = kFed + 1;
    const OracleResult own = oracle.run(prompt, run);
    const std::vector<std::int32_t> feed(own.generated.begin(), own.generated.begin() + kFed);
    const Spread spread = measure_spread(oracle, prompt, run, own, rounding, 2);
    for (const auto& backend : backends) {
      std::ostringstream where;
      where << model << ", case " << one.name << ", " << backend->info().isa << ", " << arithmetic;
      SCOPED_TRACE(where.str());
      const BackendRun found = run_on(*backend, model.config, prompt, one.method, feed);
      const Imposed decisions = found.decisions();
      OracleRun follow = run;
      follow.imposed = &decisions;
      follow.feed = feed;
      // Following decisions that are its own anyway would give the oracle the same again.
      const bool same = decisions.kept == kept_of(own) && found.tsp_kept == own.tsp_kept;
      compare_run(found, same ? own : oracle.run(prompt, follow), one.method, spread);
      if (HasFailure()) return;
    }
  }
}

TEST_P(OracleComparison, EveryMethod) {
  const auto& [shape, arithmetic] = GetParam();
  const RandomModel model(shape, kSeed);
  const Oracle oracle(model.config, model.tensors);
  const bool exact_arithmetic = arithmetic.compute == Compute::f32;
  std::vector<std::unique_ptr<Backend>> backends;
  for (simd::Isa isa : isas()) backends.push_back(backend_for(model, isa, arithmetic, 1));
  std::size_t c = 0;
  for (const MethodCase& one : rival_cases(model.config)) {
    if (arithmetic.gemm != Gemm::native || !exact_arithmetic)
      if (c++ % 4 != std::size_t(arithmetic.compute) % 4) continue;
    const std::vector<std::int32_t> prompt = model.prompt(one.n);
    OracleRun run;
    run.method = one.method;
    run.n_generate = kFed + 1;
    const OracleResult own = oracle.run(prompt, run);
    const std::vector<std::int32_t> feed(own.generated.begin(), own.generated.begin() + kFed);
    const Spread spread = measure_spread(oracle, prompt, run, own, rounding_of(arithmetic.compute), 1);
    for (const auto& backend : backends) {
      std::ostringstream where;
      where << model << ", case " << one.name << ", " << backend->info().isa << ", " << arithmetic;
      SCOPED_TRACE(where.str());
      const BackendRun found = prefill_on(*backend, model.config, prompt, one.method, feed);
      const Imposed decisions = found.decisions();
      OracleRun follow = run;
      follow.imposed = &decisions;
      follow.feed = feed;
      const bool same = decisions.kept == kept_of(own) && found.selected == own.selected;
      const bool same_counts = exact_arithmetic || one.method.method != MethodName::adakv;  // which shares by scores
      compare_rival(found, same ? own : oracle.run(prompt, follow), own, one.method, spread, same_counts);
      if (HasFailure()) return;
    }
  }
}

// Prompts beyond the blocks that the small ones stay within: 128 keys of attention, 512 of a decode step, 1024 scores.
class LongPrompt : public testing::TestWithParam<Arithmetic> {};

TEST_P(LongPrompt, EveryIsa) {
  const RandomModel model({"long", 2, 32, 32, 4, 2, 8, 67, {DType::q8_0}, false, false, false}, kSeed);
  const Oracle oracle(model.config, model.tensors);
  MethodParams fastkv = fastkv_defaults(model.config.n_layer);
  fastkv.retention = 0.5;
  fastkv.tsp_rate = 0.6;
  for (const MethodParams& method : {full_method(), fastkv}) {
    const std::vector<std::int32_t> prompt = model.prompt(1053);
    OracleRun run;
    run.method = method;
    run.n_generate = kFed + 1;
    const OracleResult own = oracle.run(prompt, run);
    const std::vector<std::int32_t> feed(own.generated.begin(), own.generated.begin() + kFed);
    const Spread spread = measure_spread(oracle, prompt, run, own, rounding_of(GetParam().compute), 1);
    for (simd::Isa isa : isas()) {
      SCOPED_TRACE(std::string(simd::name(isa)) + (method.method == MethodName::full ? ", full" : ", fastkv"));
      const BackendRun found = run_on(*backend_for(model, isa, GetParam(), 2), model.config, prompt, method, feed);
      const Imposed decisions = found.decisions();
      OracleRun follow = run;
      follow.imposed = &decisions;
      follow.feed = feed;
      const bool same = decisions.kept == kept_of(own) && found.tsp_kept == own.tsp_kept;
      compare_run(found, same ? own : oracle.run(prompt, follow), method, spread);
      if (HasFailure()) return;
    }
  }
}

// The same for column sums: 512 keys and 128/G positions a tile; 1026 has a window over the edge of 1024 scores. They
// multiply in float32 or, under bf16 and int8, in bfloat16.
class LongColumns : public testing::TestWithParam<Arithmetic> {};

TEST_P(LongColumns, EveryIsa) {
  const RandomModel model({"long", 2, 32, 32, 4, 2, 8, 67, {DType::q8_0}, false, false, false}, kSeed);
  const Oracle oracle(model.config, model.tensors);
  std::vector<MethodCase> cases;
  for (auto [method, n] :
       {std::pair{MethodName::h2o, 600}, {MethodName::pyramidinfer, 560}, {MethodName::snapkv, 1026}})
    cases.push_back({name(method), n, method_defaults(method, model.config.n_layer)});
  cases[1].method.delta = 0.3;
  cases.push_back(cases[0]);
  cases.back().method.h2o_mask = H2oMask::reference;
  for (const MethodCase& one : cases) {
    const std::vector<std::int32_t> prompt = model.prompt(one.n);
    OracleRun run;
    run.method = one.method;
    run.n_generate = 2;
    const OracleResult own = oracle.run(prompt, run);
    const std::vector<std::int32_t> feed(own.generated.begin(), own.generated.begin() + 1);
    const Spread spread = measure_spread(oracle, prompt, run, own, rounding_of(GetParam().compute), 1);
    for (simd::Isa isa : isas()) {
      SCOPED_TRACE(one.name + ", " + simd::name(isa));
      const BackendRun found =
          prefill_on(*backend_for(model, isa, GetParam(), 2), model.config, prompt, one.method, feed);
      const Imposed decisions = found.decisions();
      OracleRun follow = run;
      follow.imposed = &decisions;
      follow.feed = feed;
      const bool same = decisions.kept == kept_of(own);
      compare_rival(found, same ? own : oracle.run(prompt, follow), own, one.method, spread, true);
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Arithmetics, LongColumns, testing::Values(arithmetics()[1], arithmetics()[2]),
                         [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(Arithmetics, LongPrompt, testing::ValuesIn(arithmetics()),
                         [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(Shapes, OracleComparison,
                         testing::Combine(testing::ValuesIn(shapes()), testing::ValuesIn(arithmetics())),
                         [](const auto& param) {
                           return std::string(std::get<0>(param.param).name) + "_" + std::get<1>(param.param).name;
                         });

}  // namespace
}  // namespace fastkv::test
