// prefill() and decode_step() as the engine calls them.
#include "support/prefill_run.hpp"

#include "prefill/plan.hpp"
#include "prefill/prefill.hpp"

namespace fastkv::test {

BackendRun prefill_on(Backend& backend, const ModelConfig& config, std::span<const std::int32_t> prompt,
                      const MethodParams& method, std::span<const std::int32_t> feed) {
  RunPlan plan;
  plan.method = method;
  plan.n_prompt = std::int64_t(prompt.size());
  plan_layers(plan, config);
  PrefillOptions options;
  options.format = {backend.resolve_cache_type(CacheType::automatic, "-ctk"),
                    backend.resolve_cache_type(CacheType::automatic, "-ctv"), std::int64_t(feed.size())};
  options.record_kept = true;
  RunControl control;
  Prefill prefilled = prefill(
      backend, config, plan, prompt, options, [](int) {}, control);

  BackendRun out;
  out.logits = prefilled.logits;
  out.tsp_kept = prefilled.trace.tsp_kept;
  out.selected = prefilled.trace.selected;
  for (std::size_t l = 0; l < prefilled.cache.layers.size(); ++l) {
    const LayerCache& cache = *prefilled.cache.layers[l];
    BackendLayer layer;
    layer.kept = prefilled.trace.layers[l].kept;
    layer.coverage = prefilled.trace.layers[l].coverage.value_or(-1);
    for (int s = 0; s < plan.stored_heads; ++s) {
      std::vector<float> key(std::size_t(config.head_dim)), value(key.size());
      layer.keys.emplace_back();
      layer.values.emplace_back();
      for (std::int64_t r = 0; r < cache.length(s); ++r) {
        cache.read_row(s, r, key.data(), value.data());
        layer.keys.back().emplace_back(key.begin(), key.end());
        layer.values.back().emplace_back(value.begin(), value.end());
      }
    }
    out.layers.push_back(std::move(layer));
  }
  for (std::size_t t = 0; t < feed.size(); ++t) {
    const SequenceStep step = prefilled.cache.step(feed.subspan(t, 1));
    std::vector<float> logits(out.logits.size());
    backend.decode_step({&step, 1}, {logits.data()}, control);
    prefilled.cache.advance(1);
    out.decode_logits.push_back(logits);
  }
  return out;
}

}  // namespace fastkv::test
