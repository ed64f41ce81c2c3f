// The prefill loop against the tests' own loop over the same backend: what differs is only who decides and when rows of
// K and V are freed (shortcut S13).
#include "prefill/prefill.hpp"

#include <gtest/gtest.h>

#include "support/cases.hpp"
#include "prefill/plan.hpp"
#include "support/backend_run.hpp"

namespace fastkv::test {
namespace {

class PrefillLoop : public testing::TestWithParam<Compute> {};

TEST_P(PrefillLoop, EqualsTheTestsOwnLoop) {
  const RandomModel model({"loop", 4, 64, 96, 4, 2, 32, 101, {DType::q8_0, DType::q4_0}, false, false, false}, 17);
  EngineOptions engine_options;
  engine_options.threads = engine_options.threads_batch = 2;
  engine_options.compute = GetParam();
  const auto backend = make_backend(engine_options, model.config, model.tensors);
  RunControl control;
  backend->load(
      model.tensors, [](const TensorView&) {}, control);
  for (const MethodCase& one : method_cases(model.config.n_layer)) {
    SCOPED_TRACE(one.name);
    const std::vector<std::int32_t> prompt = model.prompt(one.n);
    const std::vector<std::int32_t> feed = {3, 1, 4};
    for (bool shortcuts : {true, false}) {
      BackendRunOptions own_options;
      own_options.shortcuts = shortcuts;
      own_options.hold_states = true;  // S13 off: every layer's K and V live to the end
      const BackendRun own = run_on(*backend, model.config, prompt, one.method, feed, own_options);

      RunPlan plan;
      plan.method = one.method;
      plan.method.shortcuts = shortcuts;
      plan.n_prompt = one.n;
      plan_layers(plan, model.config);
      PrefillOptions options;
      options.format = {backend->resolve_cache_type(CacheType::automatic, "-ctk"),
                        backend->resolve_cache_type(CacheType::automatic, "-ctv"), std::int64_t(feed.size())};
      options.record_kept = true;
      Prefill found = prefill(
          *backend, model.config, plan, prompt, options, [](int) {}, control);

      EXPECT_EQ(found.logits, own.logits);
      EXPECT_EQ(found.cache.next_position, one.n);
      for (std::size_t l = 0; l < own.layers.size(); ++l) {
        EXPECT_EQ(found.trace.layers[l].kept, own.layers[l].kept) << "layer " << l;
        if (own.layers[l].coverage >= 0 && found.trace.layers[l].coverage && found.trace.layers[l].coverage < 1.0) {
          EXPECT_EQ(*found.trace.layers[l].coverage, own.layers[l].coverage) << "layer " << l;
        }
      }
      if (one.method.tsp_layer + 1 < model.config.n_layer) {
        EXPECT_EQ(found.trace.tsp_kept, own.tsp_kept);
      }
      std::vector<float> logits(own.logits.size());
      for (std::size_t t = 0; t < feed.size(); ++t) {
        const SequenceStep step = found.cache.step(std::span(feed).subspan(t, 1));
        backend->decode_step({&step, 1}, {logits.data()}, control);
        found.cache.advance(1);
        EXPECT_EQ(logits, own.decode_logits[t]) << "step " << t;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Compute, PrefillLoop, testing::Values(Compute::f32, Compute::int8),
                         [](const auto& param) { return param.param == Compute::f32 ? "f32" : "int8"; });

}  // namespace
}  // namespace fastkv::test
