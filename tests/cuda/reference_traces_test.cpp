// The CUDA backend on two real models: kept sets and logits against the reference traces, distributions against the
// CPU in float32.
#include <algorithm>
#include <cmath>
#include <map>

#include "cuda_rounding.hpp"
#include "cuda_test.hpp"
#include "model/gguf.hpp"
#include "model/llama.hpp"
#include "support/divergence.hpp"
#include "support/engine_run.hpp"
#include "support/reference_trace.hpp"
#include "support/spread.hpp"

namespace fastkv::test {
namespace {

// What bfloat16 may move (the project's bar for it): rows whose scores lie at the cut, and logits.
constexpr double kLeastMean = 0.97, kLeastHead = 0.85;  ///< shares of a kept set that are the reference's
constexpr double kMostLogit = 0.15;                     ///< once the mean shift of all is taken away; of the real model
constexpr double kMostDivergence = 0.001;

EngineOptions cuda_options(const std::string& model) {
  EngineOptions options = engine_options(model, Compute::automatic);
  options.device = "cuda";
  return options;
}

double shared_part(const std::vector<std::int32_t>& found, const std::vector<std::int32_t>& expected) {
  std::vector<std::int32_t> both;
  std::set_intersection(found.begin(), found.end(), expected.begin(), expected.end(), std::back_inserter(both));
  return expected.empty() ? 1 : double(both.size()) / double(expected.size());
}

struct Reference {
  const char* model;
  const char* trace;
};
std::ostream& operator<<(std::ostream& out, const Reference& r) { return out << r.model << ' ' << r.trace; }

/// How far the arithmetic may move a logit of a model of 260,000 float32 weights, which the oracle is fast enough to
/// tell: their rounding to bfloat16 alone moves them by up to 0.14. (The CPU's bfloat16 is off by up to 0.24 there,
/// with logits up to 18; the emulated device by 0.10 to 0.15.)
double derived_bound(const std::string& file, const ReferenceTrace& expected) {
  const GgufFile gguf = GgufFile::open(file);
  const ModelConfig config = read_config(gguf);
  const Oracle oracle(config, read_tensors(gguf, config));
  OracleRun run;
  run.method = resolved(expected.options, config.n_layer);
  const OracleResult exact = oracle.run(expected.prompt, run);
  return kWorst * measure_spread(oracle, expected.prompt, run, exact, cuda_rounding(), 1).logits;
}

/// Logits after the prompt's tokens `chosen`, read one after another, on the CPU in float32.
std::vector<float> logits_of(const std::string& file, const std::vector<std::int32_t>& prompt,
                             const std::vector<std::int32_t>& chosen) {
  std::vector<std::int32_t> tokens;
  for (const std::int32_t position : chosen) tokens.push_back(prompt[std::size_t(position)]);
  Engine engine(engine_options(file, Compute::f32));
  engine.load();
  RunOptions options;
  options.method.method = MethodName::full;
  options.continuation = {0};
  options.step_logits = true;
  return engine.run(tokens, options).step_logits;
}

class CudaTraces : public testing::TestWithParam<Reference> {};

TEST_P(CudaTraces, KeptSetsAndLogits) {
  const auto [model, trace] = GetParam();
  const bool tiny = std::string(model) == "stories260K";
  const std::filesystem::path file = tiny ? fixtures() / "models" / "stories260K-f32.gguf" : smollm2();
  FASTKV_REQUIRE_FILE(file);
  FASTKV_REQUIRE_FILE(fixtures() / "reference" / model / (std::string(trace) + ".json"));
  const ReferenceTrace expected = read_reference(model, trace);
  Engine engine(cuda_options(file.string()));
  engine.load();
  RunOptions options = greedy(expected.options, 0, tiny ? 512 : 0);
  options.continuation = {expected.generated[0]};
  options.step_logits = true;
  const RunResult result = engine.run(expected.prompt, options);

  ASSERT_EQ(result.trace.layers.size(), expected.kept.size());
  double sum = 0;
  int heads = 0;
  const auto expect_share = [&](const std::vector<std::int32_t>& found, const std::vector<std::int32_t>& wanted) {
    EXPECT_EQ(found.size(), wanted.size());
    const double share = shared_part(found, wanted);
    EXPECT_GE(share, kLeastHead);
    sum += share;
    ++heads;
  };
  for (std::size_t l = 0; l < expected.kept.size(); ++l) {
    SCOPED_TRACE("layer " + std::to_string(l));
    EXPECT_EQ(result.trace.layers[l].tokens_in, expected.tokens_in[l]);
    ASSERT_EQ(result.trace.layers[l].kept.size(), expected.kept[l].size());
    for (std::size_t h = 0; h < expected.kept[l].size(); ++h)
      expect_share(result.trace.layers[l].kept[h], expected.kept[l][h]);
  }
  if (expected.tsp_layer) expect_share(result.trace.tsp_kept, expected.tsp_kept);
  if (!expected.selected.empty()) expect_share(result.trace.selected, expected.selected);
  EXPECT_GE(sum / heads, kLeastMean);
  RecordProperty("mean_share", std::to_string(sum / heads));

  // GemFilter answers the tokens that it chose: if one differs, the prompt of the second pass does, and its logits are
  // those of another prompt, which the CPU reads in float32.
  auto wanted = expected.first_logits;
  if (result.trace.selected != expected.selected) {
    const std::vector<float> logits = logits_of(file.string(), expected.prompt, result.trace.selected);
    for (auto& [token, logit] : wanted) logit = double(logits[std::size_t(token)]);
  }
  double shift = 0, most = 0;
  const auto difference = [&](const auto& pair) {
    return double(result.step_logits[std::size_t(pair.first)]) - pair.second;
  };
  for (const auto& pair : wanted) shift += difference(pair) / double(wanted.size());
  for (const auto& pair : wanted) most = std::max(most, std::abs(difference(pair) - shift));
  EXPECT_LE(most, tiny ? derived_bound(file.string(), expected) : kMostLogit);
  RecordProperty("largest_difference", std::to_string(most));
}

std::vector<Reference> references() {
  std::vector<Reference> out;
  for (const char* trace : {"full", "fastkv", "fastkv_budget", "fastkv_layer0", "snapkv", "streamingllm", "h2o_causal",
                            "h2o_reference", "gemfilter", "pyramidinfer_60"})
    out.push_back({"stories260K", trace});
  for (const char* trace : {"fastkv", "full", "fastkv_20", "fastkv_budget", "snapkv", "streamingllm", "h2o_causal",
                            "gemfilter", "pyramidinfer_60"}) {
    out.push_back({"smollm2-135m-q4_1", trace});
    if (kDeviceIsSlow) break;
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, CudaTraces, testing::ValuesIn(references()), [](const auto& param) {
  std::string name = std::string(param.param.model) + "_" + param.param.trace;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(CudaDivergence, StaysNearTheCpuInFloat32) {
  FASTKV_REQUIRE_FILE(smollm2());
  FASTKV_REQUIRE_FILE(novel());
  const Logits exact = text_logits(engine_options(smollm2().string(), Compute::f32), novel(), kDivergenceTokens);
  const Divergence d = divergence(exact, text_logits(cuda_options(smollm2().string()), novel(), kDivergenceTokens));
  EXPECT_LE(d.mean_kl, kMostDivergence);
  RecordProperty("mean_kl", std::to_string(d.mean_kl));
  RecordProperty("same_best", std::to_string(d.same_best));
}

}  // namespace
}  // namespace fastkv::test
