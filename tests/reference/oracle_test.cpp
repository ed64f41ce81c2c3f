// The oracle itself against the float64 reference traces: without this nothing compared with it means anything.
#include "reference/oracle.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "model/llama.hpp"
#include "support/fixtures.hpp"
#include "support/reference_trace.hpp"

namespace fastkv::test {
namespace {

class OracleTrace : public testing::TestWithParam<const char*> {};

TEST_P(OracleTrace, MatchesTheFloat64Reference) {
  const auto file = fixtures() / "models" / "stories260K-f32.gguf";
  FASTKV_REQUIRE_FILE(file);
  FASTKV_REQUIRE_FILE(fixtures() / "reference" / "stories260K" / (std::string(GetParam()) + ".json"));
  const GgufFile gguf = GgufFile::open(file.string());
  const ModelConfig config = read_config(gguf);
  const Oracle oracle(config, read_tensors(gguf, config));
  const ReferenceTrace expected = read_reference("stories260K", GetParam());
  ASSERT_EQ(expected.dtype, "float64");

  OracleRun run;
  run.method = resolved(expected.options, config.n_layer);
  run.n_generate = int(expected.generated.size());
  const OracleResult found = oracle.run(expected.prompt, run);

  EXPECT_EQ(found.generated, expected.generated);
  EXPECT_EQ(found.tsp_kept, expected.tsp_kept);
  EXPECT_EQ(found.tsp_layer, expected.tsp_layer);
  EXPECT_EQ(found.selected, expected.selected);
  EXPECT_EQ(found.next_position, expected.next_position());
  EXPECT_EQ(found.kv_bytes_f16, expected.prompt_cache_bytes(config.head_dim));
  ASSERT_EQ(found.layers.size(), expected.kept.size());
  for (std::size_t l = 0; l < expected.kept.size(); ++l) {
    EXPECT_EQ(found.layers[l].tokens_in, expected.tokens_in[l]) << "layer " << l;
    EXPECT_EQ(found.layers[l].kept, expected.kept[l]) << "layer " << l;
  }
  // Both are double: what differs is the order of sums, some 1e-15 a term of magnitude ten, through five layers.
  const std::vector<std::int32_t> best = best_tokens(found.logits, expected.first_logits.size());
  for (std::size_t i = 0; i < best.size(); ++i) {
    EXPECT_EQ(best[i], expected.first_logits[i].first) << "rank " << i;
    EXPECT_NEAR(found.logits[std::size_t(expected.first_logits[i].first)], expected.first_logits[i].second, 1e-9);
  }
}

INSTANTIATE_TEST_SUITE_P(Reference, OracleTrace,
                         testing::Values("full", "fastkv", "fastkv_budget", "fastkv_layer0", "snapkv", "streamingllm",
                                         "h2o_causal", "h2o_reference", "gemfilter", "pyramidinfer_60"),
                         [](const auto& param) { return std::string(param.param); });

TEST(OracleSelection, TiesGoToTheLowerIndex) {
  EXPECT_EQ(top_indices({1, 3, 3, 2, 3}, 2), (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(top_indices({0, 0, 0}, 1), (std::vector<std::int32_t>{0}));
  EXPECT_EQ(top_indices({5, 1}, 7), (std::vector<std::int32_t>{0, 1}));
}

TEST(OracleSelection, PoolingAtTheEnds) {
  const std::vector<double> s{1, 0, 0, 6};
  EXPECT_EQ(pooled(s, Pooling::max, 3), (std::vector<double>{1, 1, 6, 6}));
  EXPECT_EQ(pooled(s, Pooling::avg, 3), (std::vector<double>{1. / 3, 1. / 3, 2, 2}));  // zeros beyond the ends count
}

}  // namespace
}  // namespace fastkv::test
