// Decode steps: several tokens at once as one after the other, and the arithmetic that --compute auto takes for them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cache/kv_cache.hpp"
#include "support/random_model.hpp"

namespace fastkv::test {
namespace {

struct Prompted {
  std::unique_ptr<Backend> backend;
  KvCache cache;
  std::vector<float> logits;  ///< of the prompt's last token
};

Prompted prefilled(const RandomModel& model, Compute compute, std::int64_t n, CacheType type) {
  Prompted run;
  EngineOptions options;
  options.threads = options.threads_batch = 2;
  options.compute = compute;
  run.backend = make_backend(options, model.config, model.tensors);
  RunControl control;
  run.backend->load(model.tensors, {}, control);
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < n; ++i) positions.push_back(std::int32_t(i));
  const auto x = run.backend->embed(model.prompt(n), positions, control);
  for (int l = 0; l < model.config.n_layer; ++l) {
    const auto state = run.backend->begin_layer(l, *x, {}, control);
    const auto keep = run.backend->select_ends(n, n, 0, model.config.n_head_kv);
    run.cache.layers.push_back(run.backend->store(*state, *keep, {type, type, 8}, control));
    run.backend->finish_layer(l, *x, *state, nullptr, control);
  }
  run.cache.next_position = n;
  run.logits.resize(std::size_t(model.config.n_vocab));
  run.backend->logits(*x, 1, run.logits.data(), control);
  return run;
}

std::vector<float> decode(const RandomModel& model, Prompted& run, const std::vector<std::int32_t>& tokens) {
  std::vector<float> logits(std::size_t(model.config.n_vocab));
  RunControl control;
  const SequenceStep step = run.cache.step(tokens);
  run.backend->decode_step({&step, 1}, {logits.data()}, control);
  run.cache.advance(std::int64_t(tokens.size()));
  return logits;
}

// Beyond 1024 rows there are two chunks of keys, at 8192 eight, beyond it fewer and larger ones.
TEST(DecodeStep, SeveralTokensAtOnceAreBitwiseThoseOneByOne) {
  const RandomModel model({"decode", 2, 64, 96, 6, 2, 64, 101, {DType::q8_0, DType::q4_0}, true, false, true}, 5);
  for (const auto& [n, type] :
       {std::pair(1100, CacheType::f32), std::pair(1100, CacheType::f16), std::pair(1100, CacheType::bf16),
        std::pair(1100, CacheType::q8_0), std::pair(8190, CacheType::f16)}) {
    Prompted one_by_one = prefilled(model, Compute::int8, n, type), at_once = prefilled(model, Compute::int8, n, type);
    std::vector<float> expected;
    for (const std::int32_t token : {7, 11, 13}) expected = decode(model, one_by_one, {token});
    EXPECT_EQ(decode(model, at_once, {7, 11, 13}), expected) << n << ' ' << name(type);
  }
}

// The token that a step names is the largest of the logits that it would have given, without those that are banned.
TEST(DecodeStep, BestIsTheLargestLogitThatIsNotBanned) {
  const RandomModel model({"decode", 2, 64, 96, 6, 2, 64, 101, {DType::q8_0, DType::q4_0}, true, false, true}, 5);
  for (const std::vector<std::int32_t>& fed : {std::vector<std::int32_t>{7}, {7, 11, 13}}) {
    std::vector<std::int32_t> banned;
    Prompted reference = prefilled(model, Compute::int8, 70, CacheType::f16);
    std::vector<float> logits = decode(model, reference, fed);
    for (int times = 0; times < 3; ++times) {
      const auto expected = std::int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
      for (const bool with_logits : {false, true}) {
        Prompted run = prefilled(model, Compute::int8, 70, CacheType::f16);
        std::vector<float> also(logits.size());
        std::int32_t best = -1;
        RunControl control;
        const SequenceStep step = run.cache.step(fed);
        run.backend->decode_step({&step, 1}, {with_logits ? also.data() : nullptr, &best, banned}, control);
        EXPECT_EQ(best, expected) << banned.size() << " banned, " << fed.size() << " fed";
        if (with_logits && banned.empty()) {
          EXPECT_EQ(also, logits) << "logits are those of a step that names no token";
        }
      }
      banned.push_back(expected);
      logits[std::size_t(expected)] = -INFINITY;
    }
  }
}

// Most weights are float16, so that auto computes the prompt in bfloat16; the q8_0 ones meet int8 activations in
// decode.
TEST(DecodeStep, AutoReadsQuantisedWeightsWithInt8Activations) {
  const RandomModel model(
      {"mixed", 2, 64, 96, 4, 2, 32, 101, {DType::f16, DType::f16, DType::q8_0}, false, false, false}, 6);
  Prompted automatic = prefilled(model, Compute::automatic, 40, CacheType::f16),
           bf16 = prefilled(model, Compute::bf16, 40, CacheType::f16);
  EXPECT_EQ(automatic.backend->info().compute, "bf16");
  EXPECT_EQ(automatic.backend->info().decode_compute, "int8");
  EXPECT_EQ(bf16.backend->info().decode_compute, "bf16");
  EXPECT_EQ(automatic.logits, bf16.logits) << "the prompt's last token belongs to the prompt";
  EXPECT_NE(decode(model, automatic, {7}), decode(model, bf16, {7}));
}

TEST(DecodeStep, AutoLeavesFloatFilesToOneArithmetic) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const RandomModel model({"float", 1, 64, 96, 4, 2, 32, 101, {type}, false, false, false}, 7);
    const auto backend = make_backend({}, model.config, model.tensors);
    EXPECT_EQ(backend->info().decode_compute, backend->info().compute);
  }
}

}  // namespace
}  // namespace fastkv::test
