// Comparison of a backend's run with the oracle: scores, choices, cached rows, logits.
#include "support/oracle_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/prefill_run.hpp"

namespace fastkv::test {
namespace {

constexpr int kFed = 3;  ///< decode steps

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

}  // namespace

OracleCase::OracleCase(const RandomModel& model, const Oracle& oracle, const MethodCase& one, const Rounding& rounding,
                       int spread_runs)
    : model_(model), oracle_(oracle), case_(one), prompt_(model.prompt(one.n)) {
  run_.method = one.method;
  run_.n_generate = kFed + 1;
  own_ = oracle.run(prompt_, run_);
  feed_.assign(own_.generated.begin(), own_.generated.begin() + kFed);
  spread_ = measure_spread(oracle, prompt_, run_, own_, rounding, spread_runs);
}

OracleResult OracleCase::following(const BackendRun& found) const {
  const Imposed decisions = found.decisions();
  // Following decisions that are its own anyway would give the oracle the same again.
  if (decisions.kept == kept_of(own_) && found.tsp_kept == own_.tsp_kept && found.selected == own_.selected)
    return own_;
  OracleRun follow = run_;
  follow.imposed = &decisions;
  follow.feed = feed_;
  return oracle_.run(prompt_, follow);
}

void OracleCase::expect_layers(Backend& backend) const {
  const BackendRun found = run_on(backend, model_.config, prompt_, case_.method, feed_);
  compare_run(found, following(found), case_.method, spread_);
}

void OracleCase::expect_prefill(Backend& backend, bool same_counts) const {
  const BackendRun found = prefill_on(backend, model_.config, prompt_, case_.method, feed_);
  compare_rival(found, following(found), own_, case_.method, spread_, same_counts);
}

}  // namespace fastkv::test
