// What int8 and bfloat16 arithmetic cost on a real model: mean KL divergence from float32 over a page of a novel, and
// how often the best token stays.
#include <gtest/gtest.h>

#include <tuple>

#include "simd/isa.hpp"
#include "support/divergence.hpp"
#include "support/engine_run.hpp"
#include "support/fixtures.hpp"

namespace fastkv::test {
namespace {

constexpr std::size_t kTokens = 2048;

TEST(Divergence, Int8AndBfloat16StayNearFloat32) {
  FASTKV_REQUIRE_FILE(smollm2());
  FASTKV_REQUIRE_FILE(novel());
  const Logits exact = text_logits(engine_options(smollm2().string(), Compute::f32), novel(), kTokens);
  for (const auto& [compute, isa, most_kl, least_same] :
       {std::tuple{Compute::int8, "", 0.003, 0.96}, std::tuple{Compute::int8, "avx2", 0.003, 0.96},
        std::tuple{Compute::bf16, "", 0.0003, 0.985}}) {
    if (*isa && !simd::supported(simd::Isa::avx2)) continue;
    const std::string what = std::string(name(compute)) + "_" + (*isa ? isa : "best");
    EngineOptions options = engine_options(smollm2().string(), compute);
    options.isa = isa;
    const Divergence d = divergence(exact, text_logits(options, novel(), kTokens));
    RecordProperty(what + "_mean_kl", std::to_string(d.mean_kl));
    RecordProperty(what + "_same_best", std::to_string(d.same_best));
    EXPECT_LE(d.mean_kl, most_kl) << what;
    EXPECT_GE(d.same_best, least_same) << what;
  }
}

}  // namespace
}  // namespace fastkv::test
