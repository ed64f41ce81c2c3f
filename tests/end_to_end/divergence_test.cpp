// What int8 and bfloat16 arithmetic cost on a real model: mean KL divergence from float32 over a page of a novel, and
// how often the best token stays.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <tuple>

#include "simd/isa.hpp"
#include "support/engine_run.hpp"
#include "support/fixtures.hpp"

namespace fastkv::test {
namespace {

constexpr std::size_t kTokens = 2048;

/// Logits [n, V] of the novel's first tokens, by the best level if `isa` is empty.
struct Logits {
  std::size_t vocab;
  std::vector<float> values;
};
Logits logits(Compute compute, const std::string& isa = "") {
  std::ifstream file(fixtures() / "text" / "frankenstein.txt");
  std::string text(32 * 1024, '\0');
  file.read(text.data(), std::streamsize(text.size()));
  EngineOptions settings = engine_options(smollm2().string(), compute);
  settings.isa = isa;
  Engine engine(settings);
  std::vector<std::int32_t> ids = engine.tokenizer().encode(text.substr(0, text.rfind(' ')));
  EXPECT_GE(ids.size(), kTokens);
  ids.resize(kTokens);
  engine.load();
  RunOptions options;
  options.method.method = MethodName::full;
  options.n_predict = 0;
  options.all_logits = true;
  return {std::size_t(engine.info().n_vocab), engine.run(ids, options).all_logits};
}

/// Replaces a row of logits by log-probabilities.
void normalise(float* row, std::size_t n) {
  const double top = *std::max_element(row, row + n);
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += std::exp(row[i] - top);
  for (std::size_t i = 0; i < n; ++i) row[i] = float(row[i] - top - std::log(sum));
}

struct Divergence {
  double mean_kl = 0, same_best = 0;
};
/// KL(p ‖ q) of each row's distributions, on average.
Divergence divergence(Logits& p, Logits& q) {
  Divergence out;
  const std::size_t rows = p.values.size() / p.vocab;
  for (std::size_t r = 0; r < rows; ++r) {
    float *a = p.values.data() + r * p.vocab, *b = q.values.data() + r * p.vocab;
    normalise(a, p.vocab), normalise(b, p.vocab);
    double kl = 0;
    for (std::size_t i = 0; i < p.vocab; ++i) kl += std::exp(double(a[i])) * (double(a[i]) - b[i]);
    out.mean_kl += kl / double(rows);
    out.same_best +=
        double(std::max_element(a, a + p.vocab) - a == std::max_element(b, b + p.vocab) - b) / double(rows);
  }
  return out;
}

TEST(Divergence, Int8AndBfloat16StayNearFloat32) {
  FASTKV_REQUIRE_FILE(smollm2());
  FASTKV_REQUIRE_FILE(fixtures() / "text" / "frankenstein.txt");
  Logits exact = logits(Compute::f32);
  for (const auto& [compute, isa, most_kl, least_same] :
       {std::tuple{Compute::int8, "", 0.003, 0.96}, std::tuple{Compute::int8, "avx2", 0.003, 0.96},
        std::tuple{Compute::bf16, "", 0.0003, 0.985}}) {
    if (*isa && !simd::supported(simd::Isa::avx2)) continue;
    const std::string what = std::string(name(compute)) + "_" + (*isa ? isa : "best");
    Logits other = logits(compute, isa);
    ASSERT_EQ(other.values.size(), exact.values.size());
    const Divergence d = divergence(exact, other);
    RecordProperty(what + "_mean_kl", std::to_string(d.mean_kl));
    RecordProperty(what + "_same_best", std::to_string(d.same_best));
    EXPECT_LE(d.mean_kl, most_kl) << what;
    EXPECT_GE(d.same_best, least_same) << what;
  }
}

}  // namespace
}  // namespace fastkv::test
