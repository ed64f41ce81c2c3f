// Scores from whole attention matrices, budgets, and the rows they choose, method by method.
#include "reference/oracle_methods.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace fastkv::test {
namespace {

using Rows = std::vector<std::int32_t>;
using Scores = std::vector<double>;

Rows all_rows(std::int64_t n) {
  Rows rows(static_cast<std::size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

/// The first `sinks`, the last `window` and the best others of n rows, k in all, ascending.
Rows choose(const Scores& scores, std::int64_t n, std::int64_t k, std::int64_t sinks, std::int64_t window) {
  if (k >= n) return all_rows(n);
  const std::int64_t first = std::min(sinks, k - window);
  const Scores rest(scores.begin() + first, scores.begin() + (n - window));
  Rows rows;
  for (std::int64_t i = 0; i < first; ++i) rows.push_back(std::int32_t(i));
  for (std::int32_t i : top_indices(rest, k - window - first)) rows.push_back(std::int32_t(i + first));
  for (std::int64_t i = n - window; i < n; ++i) rows.push_back(std::int32_t(i));
  return rows;
}

/// Scores of each group of consecutive heads in one.
Matrix joined(const Matrix& heads, int groups, GroupReduce reduce) {
  Matrix out;
  const std::size_t size = heads.size() / std::size_t(groups);
  for (std::size_t g = 0; g < std::size_t(groups); ++g) {
    Scores one = heads[g * size];
    for (std::size_t h = g * size + 1; h < (g + 1) * size; ++h)
      for (std::size_t j = 0; j < one.size(); ++j)
        one[j] = reduce == GroupReduce::sum ? one[j] + heads[h][j] : std::max(one[j], heads[h][j]);
    out.push_back(one);
  }
  return out;
}

Matrix all_pooled(const Matrix& scores, const MethodParams& m, int shift = 0) {
  Matrix out;
  for (const Scores& s : scores) out.push_back(pooled(s, m.pooling, m.kernel, shift));
  return out;
}

/// S [H][n − drop]: attention mass of the last `rows` rows, each times its weight.
Matrix mass(const LayerAttention& a, std::int64_t rows, std::int64_t drop,
            const std::function<double(std::int64_t)>& weight = {},
            const std::function<std::int64_t(std::int64_t)>& visible = {}) {
  Matrix out(std::size_t(a.heads), Scores(std::size_t(a.n - drop), 0.0));
  for (int h = 0; h < a.heads; ++h) {
    for (std::int64_t i = a.n - rows; i < a.n; ++i) {
      const Scores one = a.weights(h, i, visible ? visible(i) : i + 1);
      const double lambda = weight ? weight(i - (a.n - rows)) : 1.0;
      Scores& sum = out[std::size_t(h)];
      for (std::size_t j = 0; j < std::min(one.size(), sum.size()); ++j) sum[j] += lambda * one[j];
    }
  }
  return out;
}

/// C (0.1).
std::int64_t budget(const MethodParams& m, std::int64_t n) {
  return m.proportional ? std::int64_t(double(n) * m.retention) : m.kv_budget;
}
bool compresses(const MethodParams& m, std::int64_t n, std::int64_t c) { return n > m.window && n >= c; }
std::int64_t clamped(const MethodParams& m, std::int64_t n, std::int64_t rows) {
  return std::min<std::int64_t>(n, std::max<std::int64_t>(rows, m.window + m.sinks));
}

// 2.2: pool, then sum inside the group; propagation sums over all heads.
Decision fastkv(const MethodParams& m, const LayerAttention& a, OracleLayer& out) {
  const std::int64_t n = a.n, w = m.window;
  std::int64_t c = budget(m, n);
  if (m.proportional && a.layer > m.tsp_layer) {
    c = m.tsp_by_rate ? std::int64_t(double(n) * (m.retention / m.tsp_rate))
                      : std::min(n, std::int64_t(double(a.n_prompt) * m.retention));
  }
  Decision decision;
  if (n > w) {
    out.raw = mass(a, w, w);
    out.pooled = all_pooled(out.raw, m);
    out.grouped = joined(out.pooled, a.heads_kv, m.group_reduce);
  }
  if (!compresses(m, n, c)) {  // this exit skips TSP too
    decision.keep.assign(std::size_t(a.heads_kv), all_rows(n));
    return decision;
  }
  for (const Scores& g : out.grouped) decision.keep.push_back(choose(g, n, clamped(m, n, c), m.sinks, w));
  const std::int64_t tsp_w = m.tsp_window;
  const std::int64_t wanted = m.tsp_by_rate ? std::int64_t(double(n) * m.tsp_rate) : m.tsp_tokens;
  const std::int64_t count = std::min(n, std::max<std::int64_t>(wanted, tsp_w + m.sinks));
  if (a.layer == m.tsp_layer && n > tsp_w && n > count) {
    out.propagation = joined(all_pooled(mass(a, tsp_w, tsp_w), m, m.tsp_shift), 1, GroupReduce::sum)[0];
    decision.next = choose(out.propagation, n, count, m.sinks, tsp_w);
  }
  return decision;
}

/// Scored rows that PyramidKV gives layer `layer` (7).
std::int64_t pyramid_rows(std::int64_t b, std::int64_t n, std::int64_t w, int layer, int n_layer) {
  if (n < 2 * b) return b;
  std::int64_t least = b / 20, most = 2 * b - least;
  if (most >= n - w) {
    most = n - w;
    least = 2 * b - most;
  }
  const std::int64_t step = n_layer > 1 ? (most - least) / (n_layer - 1) : 0;
  return most - layer * step;
}

/// Scored rows that AdaKV gives each head (7). At b = n − w there is nothing to share out.
std::vector<std::int64_t> ada_rows(const Matrix& scores, std::int64_t b) {
  const std::int64_t n = std::int64_t(scores[0].size());
  if (b >= n) return std::vector<std::int64_t>(scores.size(), n);
  Scores all;
  for (const Scores& s : scores) {
    Scores order = s;
    std::sort(order.rbegin(), order.rend());
    const double best = std::accumulate(order.begin(), order.begin() + b, 0.0);
    const double total = std::accumulate(order.begin(), order.end(), 0.0);
    for (double v : s) all.push_back(v * best / total);
  }
  std::vector<std::int64_t> count(scores.size(), 0);
  for (std::int32_t i : top_indices(all, std::int64_t(scores.size()) * b)) ++count[std::size_t(i / n)];
  const double floor = double(std::int64_t(double(b) * 0.2));
  for (std::int64_t& rows : count) rows = std::int64_t(std::rint(double(rows) * 0.8 + floor));
  return count;
}

/// Rows on top of the window that HeadKV gives each stored head (2.8).
std::vector<std::int64_t> head_rows(const MethodParams& m, const LayerAttention& a, std::int64_t n) {
  const double c = m.proportional ? std::rint(double(n) * m.retention) : double(m.kv_budget);
  const double base = std::floor(c / 1.01), pool = base * a.n_layer * a.heads;
  std::vector<std::int64_t> caps;
  for (int h = 0; h < a.heads; ++h)
    caps.push_back(std::int64_t(std::rint(m.head_shares[std::size_t(a.layer * a.heads + h)] * pool + (c - base))));
  if (m.granularity == Granularity::query_head) return caps;
  std::vector<std::int64_t> per_group;
  const int group = a.heads / a.heads_kv;
  for (int k = 0; k < a.heads_kv; ++k) {
    const auto first = caps.begin() + k * group;
    per_group.push_back(
        std::int64_t(std::rint(double(std::accumulate(first, first + group, std::int64_t(0))) / group)));
  }
  return per_group;
}

// 2.3, 2.8, 7: SnapKV's scores under four ways to share rows out. Per key/value head: joined, then pooled.
Decision window_scored(const MethodParams& m, const LayerAttention& a, int stored, OracleLayer& out) {
  const std::int64_t n = a.n, w = m.window, c = budget(m, n);
  Decision decision;
  if (n > w) {
    out.raw = mass(a, w, w);
    out.pooled = all_pooled(out.raw, m);
    out.grouped = stored == a.heads ? out.pooled : all_pooled(joined(out.raw, a.heads_kv, m.group_reduce), m);
  }
  if (!compresses(m, n, c)) {
    decision.keep.assign(std::size_t(stored), all_rows(n));
    return decision;
  }
  std::vector<std::int64_t> rows(std::size_t(stored), clamped(m, n, c) - w);
  if (m.method == MethodName::pyramidkv)
    rows.assign(std::size_t(stored), pyramid_rows(std::max<std::int64_t>(c - w, 0), n, w, a.layer, a.n_layer));
  if (m.method == MethodName::adakv) rows = ada_rows(out.grouped, rows[0]);
  if (m.method == MethodName::headkv) rows = head_rows(m, a, n);
  for (std::size_t s = 0; s < rows.size(); ++s)
    decision.keep.push_back(choose(out.grouped[s], n, clamped(m, n, rows[s] + w), m.sinks, w));
  return decision;
}

// 2.5: the authors' mask hides the future only inside the window's corner.
Decision h2o(const MethodParams& m, const LayerAttention& a, int stored, OracleLayer& out) {
  const std::int64_t n = a.n, w = m.window, c = budget(m, n);
  Decision decision;
  if (!compresses(m, n, c)) {
    decision.keep.assign(std::size_t(stored), all_rows(n));
    return decision;
  }
  const auto visible = [&](std::int64_t i) { return m.h2o_mask == H2oMask::causal || i >= n - w ? i + 1 : n; };
  out.raw = mass(a, n, w, {}, visible);
  out.grouped = stored == a.heads ? out.raw : joined(out.raw, a.heads_kv, m.group_reduce);
  for (const Scores& s : out.grouped) decision.keep.push_back(choose(s, n, clamped(m, n, c), m.sinks, w));
  return decision;
}

// 7: the last row, all heads alike.
Decision tova(const MethodParams& m, const LayerAttention& a, OracleLayer& out) {
  const std::int64_t n = a.n, k = std::min<std::int64_t>(n, std::max<std::int64_t>(budget(m, n), 1 + m.sinks));
  out.raw = mass(a, 1, 1);
  out.grouped.assign(std::size_t(a.heads_kv), joined(out.raw, 1, GroupReduce::sum)[0]);
  Decision decision;
  for (const Scores& s : out.grouped) decision.keep.push_back(choose(s, n, k, m.sinks, 1));
  return decision;
}

// 2.4.
Decision streamingllm(const MethodParams& m, const LayerAttention& a) {
  const std::int64_t n = a.n, c = std::min<std::int64_t>(n, std::max<std::int64_t>(budget(m, n), m.sinks + 1));
  Rows rows;
  for (std::int64_t i = 0; i < n; ++i)
    if (i < m.sinks || i >= n - (c - m.sinks) || c == n) rows.push_back(std::int32_t(i));
  Decision decision;
  decision.keep.assign(std::size_t(a.heads_kv), rows);
  return decision;
}

// 2.7, with R and m0 from the whole prompt.
Decision pyramidinfer(const MethodParams& m, const LayerAttention& a, OracleLayer& out) {
  Decision decision;
  decision.keep.assign(std::size_t(a.heads_kv), all_rows(a.n));
  const std::int64_t r = std::min(a.n_prompt - 1, std::int64_t(double(a.n_prompt) * m.recent));
  const std::int64_t m0 = std::min<std::int64_t>(64, a.n_prompt - 1 - r), c = a.n - (r + 1);
  const double q = (1 - m.delta) * (std::cos(std::numbers::pi * a.layer / a.n_layer) + 1) / 2 + m.delta;
  if (a.layer + 1 == a.n_layer || c <= m0 || q >= 1) return decision;
  const std::int64_t target = std::int64_t(double(c) * q), k = target > m0 ? target : c;
  if (k == c) return decision;
  const auto lambda = [&](std::int64_t i) { return r == 0 ? 1 : 1 + (m.gamma - 1) * double(i) / double(r); };
  Scores u = joined(mass(a, r + 1, r + 1, lambda), 1, GroupReduce::sum)[0];
  for (std::size_t j = 0; j < 4; ++j) u[j] = std::numeric_limits<double>::max();
  out.propagation = u;
  decision.next = choose(u, a.n, k + r + 1, 0, r + 1);
  return decision;
}

}  // namespace

int stored_heads(const MethodParams& m, const ModelConfig& config) {
  switch (m.method) {
    case MethodName::snapkv:
    case MethodName::h2o:
    case MethodName::headkv:
      return m.granularity == Granularity::query_head ? config.n_head : config.n_head_kv;
    case MethodName::pyramidkv:
    case MethodName::adakv:
      return config.n_head;
    default:
      return config.n_head_kv;
  }
}

Decision decide(const MethodParams& m, const LayerAttention& layer, OracleLayer& out) {
  ModelConfig heads;
  heads.n_head = layer.heads;
  heads.n_head_kv = layer.heads_kv;
  const int stored = stored_heads(m, heads);
  switch (m.method) {
    case MethodName::full:
    case MethodName::gemfilter:
      break;
    case MethodName::fastkv:
      return fastkv(m, layer, out);
    case MethodName::snapkv:
    case MethodName::pyramidkv:
    case MethodName::adakv:
    case MethodName::headkv:
      return window_scored(m, layer, stored, out);
    case MethodName::streamingllm:
      return streamingllm(m, layer);
    case MethodName::h2o:
      return h2o(m, layer, stored, out);
    case MethodName::pyramidinfer:
      return pyramidinfer(m, layer, out);
    case MethodName::tova:
      return tova(m, layer, out);
  }
  Decision everything;
  everything.keep.assign(std::size_t(stored), all_rows(layer.n));
  return everything;
}

std::int64_t scoring_rows(const MethodParams& m, std::int64_t n) {
  return m.method == MethodName::h2o ? n : m.method == MethodName::tova ? 1 : m.window;
}

std::int64_t filtered_tokens(const MethodParams& m, std::int64_t n_prompt) {
  return std::min(n_prompt, std::max<std::int64_t>(budget(m, n_prompt), 1));
}

// Heads are summed first, then pooled with width 5, whatever the options.
std::vector<double> filter_scores(const LayerAttention& a) {
  Matrix logits;
  for (int h = 0; h < a.heads; ++h) logits.push_back(a.last_logits(h));
  return pooled(joined(logits, 1, GroupReduce::sum)[0], Pooling::avg, 5);
}

}  // namespace fastkv::test
