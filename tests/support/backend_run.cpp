// The tests' own loop over the half-layers of a Backend.
#include "support/backend_run.hpp"

#include <algorithm>

namespace fastkv::test {
namespace {

std::vector<std::vector<float>> rows(Backend& backend, const Scores& scores) {
  const std::vector<float> flat = backend.read(scores);
  std::vector<std::vector<float>> out;
  for (int h = 0; h < scores.heads; ++h)
    out.emplace_back(flat.begin() + h * scores.n, flat.begin() + (h + 1) * scores.n);
  return out;
}

std::int64_t budget_of(const MethodParams& m, int layer, std::int64_t n, std::int64_t prompt_length) {
  if (!m.proportional) return m.kv_budget;
  if (layer <= m.tsp_layer) return std::int64_t(double(n) * m.retention);
  if (m.tsp_by_rate) return std::int64_t(double(n) * (m.retention / m.tsp_rate));
  return std::min(n, std::int64_t(double(prompt_length) * m.retention));
}

}  // namespace

Imposed BackendRun::decisions() const {
  Imposed out;
  for (const BackendLayer& layer : layers) out.kept.push_back(layer.kept);
  if (!tsp_kept.empty()) out.tsp_kept = tsp_kept;
  out.selected = selected;
  return out;
}

BackendRun run_on(Backend& backend, const ModelConfig& config, std::span<const std::int32_t> prompt,
                  const MethodParams& m, std::span<const std::int32_t> feed, const BackendRunOptions& options) {
  BackendRun out;
  RunControl control;
  const std::int64_t length = std::int64_t(prompt.size());
  const int group_heads = config.n_head_kv;
  const CacheFormat format{backend.resolve_cache_type(options.cache_k, "-ctk"),
                           backend.resolve_cache_type(options.cache_v, "-ctv"), std::int64_t(feed.size())};
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < length; ++i) positions.push_back(std::int32_t(i));
  std::vector<std::unique_ptr<LayerCache>> caches;
  std::vector<std::unique_ptr<LayerState>> held;
  const std::unique_ptr<Hidden> x = backend.embed(prompt, positions, control);
  for (int l = 0; l < config.n_layer; ++l) {
    BackendLayer layer;
    layer.positions = x->positions();
    const std::int64_t n = x->n(), w = m.window;
    const bool fastkv = m.method == MethodName::fastkv, last = l + 1 == config.n_layer;
    const std::int64_t budget = budget_of(m, l, n, length);
    const bool scored = fastkv && n > w && n >= budget;
    const bool tsp = scored && l == m.tsp_layer && n > m.tsp_window;
    ScoreNeeds needs;
    if (scored) needs.rows = tsp ? std::max(m.window, m.tsp_window) : w;
    std::unique_ptr<LayerState> state = backend.begin_layer(l, *x, needs, control);
    std::unique_ptr<Selection> keep, next;
    if (scored) {
      const std::int64_t capacity = std::min(n, std::max(budget, w + m.sinks));
      const auto raw = backend.column_scores(l, *state, {w, w}, control);
      const auto pooled = backend.pool(*raw, m.pooling, {m.kernel / 2, m.kernel / 2});
      const auto grouped = backend.reduce_heads(*pooled, group_heads, m.group_reduce);
      keep = backend.top_k(*grouped, n, {capacity}, std::min<std::int64_t>(m.sinks, capacity - w), w);
      layer.raw = rows(backend, *raw);
      layer.pooled = rows(backend, *pooled);
      layer.grouped = rows(backend, *grouped);
      layer.coverage = backend.coverage(*raw, *keep, w);
      if (tsp) {
        const std::int64_t wanted = m.tsp_by_rate ? std::int64_t(double(n) * m.tsp_rate) : m.tsp_tokens;
        const std::int64_t count = std::min(n, std::max<std::int64_t>(wanted, m.tsp_window + m.sinks));
        if (n > count) {
          const auto mass = backend.column_scores(l, *state, {m.tsp_window, m.tsp_window}, control);
          const auto smooth = backend.pool(*mass, m.pooling, {m.kernel / 2 - m.tsp_shift, m.kernel / 2 + m.tsp_shift});
          const auto z = backend.reduce_heads(*smooth, 1, GroupReduce::sum);
          layer.propagation = backend.read(*z);
          next = backend.top_k(*z, n, {count}, std::min<std::int64_t>(m.sinks, count - m.tsp_window), m.tsp_window);
          for (std::int32_t r : backend.read(*next, 0)) out.tsp_kept.push_back(layer.positions[std::size_t(r)]);
        }
      }
    } else {
      keep = backend.select_ends(n, n, 0, config.n_head_kv);
    }
    for (int k = 0; k < config.n_head_kv; ++k) {
      layer.kept.emplace_back();
      for (std::int32_t r : backend.read(*keep, k)) layer.kept.back().push_back(layer.positions[std::size_t(r)]);
    }
    caches.push_back(backend.store(*state, *keep, format, control));
    std::unique_ptr<Selection> only_last;
    if (options.shortcuts && last) only_last = backend.select_ends(n, 0, 1, 1);
    const Selection* computed = only_last ? only_last.get() : options.shortcuts ? next.get() : nullptr;
    backend.finish_layer(l, *x, *state, computed, control);
    if (next && !computed) backend.gather(*x, *next);
    for (int k = 0; options.read_cache && k < config.n_head_kv; ++k) {
      layer.keys.emplace_back();
      layer.values.emplace_back();
      std::vector<float> key(std::size_t(config.head_dim)), value(key.size());
      for (std::int64_t r = 0; r < caches.back()->length(k); ++r) {
        caches.back()->read_row(k, r, key.data(), value.data());
        layer.keys.back().emplace_back(key.begin(), key.end());
        layer.values.back().emplace_back(value.begin(), value.end());
      }
    }
    if (options.hold_states) held.push_back(std::move(state));
    out.layers.push_back(std::move(layer));
  }
  out.logits.resize(std::size_t(config.n_vocab));
  backend.logits(*x, 1, out.logits.data(), control);
  for (std::size_t t = 0; t < feed.size(); ++t) {
    const SequenceStep step{caches, feed.subspan(t, 1), length + std::int64_t(t)};
    std::vector<float> logits(out.logits.size());
    backend.decode_step({&step, 1}, {logits.data()}, control);
    out.decode_logits.push_back(logits);
  }
  return out;
}

}  // namespace fastkv::test
