// The engine in float32 against the reference traces of two models: logits, kept sets, tokens (spec/trace.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "model/llama.hpp"
#include "support/backend_run.hpp"
#include "support/engine_run.hpp"
#include "support/reference_trace.hpp"

namespace fastkv::test {
namespace {

constexpr double kCut = 1e-5;  ///< relative: rows whose scores lie this near the cut may fall on either side

struct Reference {
  const char* model;
  const char* trace;
};

std::filesystem::path model_file(const std::string& model) {
  return model == "stories260K" ? fixtures() / "models" / "stories260K-f32.gguf" : smollm2();
}

/// Rows kept by one side only must score like the row at the cut: the worst kept and the best dropped.
void expect_same_but_for_the_cut(const std::vector<std::int32_t>& found, const std::vector<std::int32_t>& expected,
                                 const std::vector<std::int32_t>& positions, const std::vector<double>& scores) {
  std::vector<std::int32_t> differing;
  std::set_symmetric_difference(found.begin(), found.end(), expected.begin(), expected.end(),
                                std::back_inserter(differing));
  if (differing.empty()) return;
  auto score = [&](std::int32_t position) {
    const auto at = std::lower_bound(positions.begin(), positions.end(), position) - positions.begin();
    return std::size_t(at) < scores.size() ? scores[std::size_t(at)] : INFINITY;
  };
  double cut = INFINITY;
  for (std::int32_t p : found) cut = std::min(cut, score(p));
  for (std::int32_t p : differing)
    EXPECT_NEAR(score(p) / cut, 1, kCut) << "position " << p << " scores " << score(p) << ", the cut is at " << cut;
}

/// Scores by which a run of the same decisions chose: by the oracle where it is fast enough, else by the backend
/// itself, half-layer by half-layer, outside the engine.
struct Scored {
  std::vector<std::vector<std::int32_t>> positions;  ///< [N][n]
  std::vector<Matrix> grouped;                       ///< [N][stored heads][scored rows]
  std::vector<std::vector<double>> propagation;      ///< [N][scored rows] of the rows that go on; empty: all do
  std::vector<double> filter;                        ///< [L] of gemfilter's tokens
};

Matrix read_rows(Backend& backend, const Scores& scores) {
  const std::vector<float> flat = backend.read(scores);
  Matrix out;
  for (int h = 0; h < scores.heads; ++h)
    out.emplace_back(flat.begin() + h * scores.n, flat.begin() + (h + 1) * scores.n);
  return out;
}

Scored scores_by_oracle(const ModelConfig& config, const ModelTensors& tensors, const MethodParams& method,
                        const ReferenceTrace& expected, const Trace& found) {
  const Imposed decisions = decisions_of(found);
  OracleRun run;
  run.method = method;
  run.imposed = &decisions;
  const OracleResult result = Oracle(config, tensors).run(expected.prompt, run);
  Scored out;
  out.filter = result.filter_scores;
  for (const OracleLayer& layer : result.layers) {
    out.positions.push_back(layer.positions);
    out.grouped.push_back(layer.grouped);
    out.propagation.push_back(layer.propagation);
  }
  return out;
}

/// SnapKV, H2O (all rows go on) and GemFilter's first pass.
Scored scores_by_backend(Backend& backend, const ModelConfig& config, const MethodParams& m,
                         const ReferenceTrace& expected) {
  Scored out;
  RunControl control;
  const std::int64_t n = std::int64_t(expected.prompt.size());
  std::vector<std::int32_t> positions(expected.prompt.size());
  std::iota(positions.begin(), positions.end(), 0);
  const auto x = backend.embed(expected.prompt, positions, control);
  const bool filters = m.method == MethodName::gemfilter, h2o = m.method == MethodName::h2o;
  const std::int64_t rows = filters ? 1 : h2o ? n : m.window;
  for (int l = 0; l < (filters ? m.filter_layer + 1 : config.n_layer); ++l) {
    const auto state = backend.begin_layer(l, *x, {rows}, control);
    if (filters && l == m.filter_layer) {
      const auto u = backend.reduce_heads(*backend.last_row_logits(l, *state, control), 1, GroupReduce::sum);
      out.filter = read_rows(backend, *backend.pool(*u, Pooling::avg, {2, 2}))[0];
    } else if (!filters) {
      const auto s = backend.column_scores(l, *state, {rows, m.window}, control);
      out.grouped.push_back(read_rows(backend, h2o ? *s : *backend.pool(*s, m.pooling, {m.kernel / 2, m.kernel / 2})));
    }
    backend.finish_layer(l, *x, *state, nullptr, control);
    out.positions.push_back(positions);
    out.propagation.emplace_back();
  }
  return out;
}

Scored scores_of(const std::string& file, const ReferenceTrace& expected, const Trace& found, bool by_oracle) {
  const GgufFile gguf = GgufFile::open(file);
  const ModelConfig config = read_config(gguf);
  const ModelTensors tensors = read_tensors(gguf, config);
  const MethodParams method = resolved(expected.options, config.n_layer);
  if (by_oracle) return scores_by_oracle(config, tensors, method, expected, found);
  EngineOptions options = engine_options(file, Compute::f32);
  const auto backend = make_backend(options, config, tensors);
  RunControl control;
  backend->load(
      tensors, [](const TensorView&) {}, control);
  if (method.method != MethodName::fastkv) return scores_by_backend(*backend, config, method, expected);
  Scored out;
  BackendRunOptions light;
  light.read_cache = false;
  const BackendRun run = run_on(*backend, config, expected.prompt, method, {}, light);
  for (const BackendLayer& layer : run.layers) {
    out.positions.push_back(layer.positions);
    out.grouped.emplace_back();
    for (const auto& g : layer.grouped) out.grouped.back().emplace_back(g.begin(), g.end());
    out.propagation.emplace_back(layer.propagation.begin(), layer.propagation.end());
  }
  return out;
}

class ReferenceTraces : public testing::TestWithParam<Reference> {};

TEST_P(ReferenceTraces, Float32) {
  const Reference reference = GetParam();
  const std::string file = model_file(reference.model).string();
  FASTKV_REQUIRE_FILE(file);
  const auto trace_file = fixtures() / "reference" / reference.model / (std::string(reference.trace) + ".json");
  FASTKV_REQUIRE_FILE(trace_file);
  const ReferenceTrace expected = read_reference(reference.model, reference.trace);

  Engine engine(engine_options(file, Compute::f32));
  engine.load();
  const bool tiny = std::string(reference.model) == "stories260K";
  const RunResult result =
      engine.run(expected.prompt, greedy(expected.options, int(expected.generated.size()), tiny ? 512 : 0));
  const Trace& found = result.trace;

  EXPECT_EQ(result.tokens, expected.generated);
  EXPECT_EQ(found.next_position, expected.next_position());
  EXPECT_EQ(found.kv_bytes_f16, expected.prompt_cache_bytes(engine.info().head_dim));

  const double tolerance = expected.dtype == "float64" ? 1e-3 : 2e-4;
  ASSERT_EQ(found.first_logits.size(), 32u);
  const std::map<std::int32_t, float> logits(found.first_logits.begin(), found.first_logits.end());
  const double last = expected.first_logits.back().second;
  for (const auto& [token, logit] : expected.first_logits) {
    const auto at = logits.find(token);
    if (at == logits.end())  // only the last places may go to another token
      EXPECT_NEAR(logit, last, 2 * tolerance) << "token " << token << " is missing";
    else
      EXPECT_NEAR(at->second, logit, tolerance) << "token " << token;
  }

  EXPECT_EQ(found.tsp_layer, expected.tsp_layer);
  ASSERT_EQ(found.layers.size(), expected.kept.size());
  ASSERT_EQ(found.selected.size(), expected.selected.size());
  bool same = found.tsp_kept == expected.tsp_kept && found.selected == expected.selected;
  for (std::size_t l = 0; l < expected.kept.size(); ++l) {
    EXPECT_EQ(found.layers[l].tokens_in, expected.tokens_in[l]);
    ASSERT_EQ(found.layers[l].kept.size(), expected.kept[l].size());
    for (std::size_t k = 0; k < expected.kept[l].size(); ++k)
      EXPECT_EQ(found.layers[l].kept[k].size(), expected.kept[l][k].size());
    same = same && found.layers[l].kept == expected.kept[l];
  }
  RecordProperty("kept_sets_identical", same ? "yes" : "no");
  if (same) return;
  const bool tokens_leave = expected.options.method == MethodName::pyramidinfer;
  ASSERT_TRUE(tiny || !tokens_leave) << "no scores for rows that differ; all were the same so far";
  const Scored scored = scores_of(file, expected, found, tiny);
  if (found.tsp_layer)
    expect_same_but_for_the_cut(found.tsp_kept, expected.tsp_kept, scored.positions[std::size_t(*found.tsp_layer)],
                                scored.propagation[std::size_t(*found.tsp_layer)]);
  if (!found.selected.empty()) {
    std::vector<std::int32_t> all(expected.prompt.size());
    std::iota(all.begin(), all.end(), 0);
    expect_same_but_for_the_cut(found.selected, expected.selected, all, scored.filter);
    return;  // everything else is kept
  }
  for (std::size_t l = 0; l < expected.kept.size(); ++l) {
    SCOPED_TRACE("layer " + std::to_string(l));
    if (tokens_leave) {  // what enters a layer was chosen in the one before
      if (l == 0 || found.layers[l].kept == expected.kept[l]) continue;
      expect_same_but_for_the_cut(found.layers[l].kept[0], expected.kept[l][0], scored.positions[l - 1],
                                  scored.propagation[l - 1]);
      return;  // from here on other rows compete
    }
    for (std::size_t k = 0; k < expected.kept[l].size(); ++k) {
      SCOPED_TRACE("head " + std::to_string(k));
      expect_same_but_for_the_cut(found.layers[l].kept[k], expected.kept[l][k], scored.positions[l],
                                  scored.grouped[l][k]);
    }
  }
}

std::vector<Reference> references() {
  std::vector<Reference> out;
  for (const char* trace : {"full", "fastkv", "fastkv_budget", "fastkv_layer0", "snapkv", "streamingllm", "h2o_causal",
                            "h2o_reference", "gemfilter", "pyramidinfer_60"})
    out.push_back({"stories260K", trace});
  for (const char* trace : {"full", "fastkv", "fastkv_20", "fastkv_budget", "snapkv", "streamingllm", "h2o_causal",
                            "gemfilter", "pyramidinfer_60"})
    out.push_back({"smollm2-135m-q4_1", trace});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, ReferenceTraces, testing::ValuesIn(references()), [](const auto& param) {
  std::string name = std::string(param.param.model) + "_" + param.param.trace;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace fastkv::test
