// Decode on any number of threads, whether kernels fetch ahead or not: bitwise the same logits, also where a head's
// keys are split into several items.
#include <gtest/gtest.h>

#include "cache/kv_cache.hpp"
#include "support/fetches_ahead.hpp"
#include "support/random_model.hpp"

namespace fastkv::test {
namespace {

class DecodeDeterminism : public testing::TestWithParam<Compute> {};

TEST_P(DecodeDeterminism, LogitsForAnyNumberOfThreads) {
  const RandomModel model({"decode", 2, 64, 96, 6, 2, 64, 101, {DType::q8_0}, true, false, true}, 31);
  constexpr std::int64_t n = 1100;  // two chunks of keys
  const std::vector<std::int32_t> prompt = model.prompt(n), fed = {7, 11, 13};
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < n; ++i) positions.push_back(std::int32_t(i));
  std::vector<float> expected;
  for (const auto& [threads, fetching] :
       {std::pair{1, false}, {1, true}, {2, false}, {2, true}, {3, true}, {5, false}}) {
    const FetchesAhead scope(fetching);
    EngineOptions options;
    options.threads = options.threads_batch = threads;
    options.compute = GetParam();
    const auto backend = make_backend(options, model.config, model.tensors);
    RunControl control;
    backend->load(model.tensors, {}, control);
    const auto x = backend->embed(prompt, positions, control);
    KvCache cache;
    for (int l = 0; l < model.config.n_layer; ++l) {
      const auto state = backend->begin_layer(l, *x, {}, control);
      const auto keep = backend->select_ends(n, n, 0, model.config.n_head_kv);
      cache.layers.push_back(backend->store(*state, *keep, {CacheType::f16, CacheType::f16, 4}, control));
      backend->finish_layer(l, *x, *state, nullptr, control);
    }
    cache.next_position = n;
    std::vector<float> found;
    for (const std::int32_t token : fed) {
      std::vector<float> logits(std::size_t(model.config.n_vocab));
      const SequenceStep step = cache.step({&token, 1});
      backend->decode_step({&step, 1}, {logits.data()}, control);
      cache.advance(1);
      found.insert(found.end(), logits.begin(), logits.end());
    }
    if (expected.empty()) expected = found;
    EXPECT_EQ(found, expected) << threads << " threads, " << (fetching ? "fetching ahead" : "not fetching ahead");
  }
}

INSTANTIATE_TEST_SUITE_P(Compute, DecodeDeterminism, testing::Values(Compute::f32, Compute::bf16, Compute::int8),
                         [](const auto& param) { return std::string(name(param.param)); });

}  // namespace
}  // namespace fastkv::test
