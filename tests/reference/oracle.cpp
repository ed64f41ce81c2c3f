// The forward pass of the oracle: plain loops, one token row at a time.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "reference/oracle_methods.hpp"
#include "reference/rounding.hpp"

namespace fastkv::test {
namespace {

/// Which of the rows that entered have these positions.
std::vector<std::int32_t> rows_of(const std::vector<std::int32_t>& entered,
                                  const std::vector<std::int32_t>& positions) {
  std::vector<std::int32_t> rows;
  for (std::int32_t p : positions) {
    const auto at = std::lower_bound(entered.begin(), entered.end(), p);
    if (at == entered.end() || *at != p)
      throw std::runtime_error("imposed position " + std::to_string(p) + " did not enter the layer");
    rows.push_back(std::int32_t(at - entered.begin()));
  }
  return rows;
}

}  // namespace

/// One run: the residual stream, the caches and the source of imitated rounding.
class OraclePass {
 public:
  OraclePass(const Oracle& model, const OracleRun& run) : m_(model), run_(run), rounder_(run.rounding) {}

  OracleResult go(std::span<const std::int32_t> prompt);

 private:
  using Row = std::vector<double>;
  struct Projected {
    Matrix q, k, v;  ///< [n][H·d], [n][K·d], [n][K·d], q and k rotated
  };

  Row normed(const Row& x, const Row& weight) const;
  void rotate(Row& x, std::int64_t heads, std::int64_t position) const;
  Row embedding(std::int32_t token) const;
  Projected project(const Oracle::Layer& layer, const Matrix& x, const std::vector<std::int32_t>& positions);
  Row weights(const double* q, const Matrix& keys, std::size_t column, std::int64_t visible) const;
  void attend(const Oracle::Layer& layer, const Projected& p, Matrix& x);
  void feed_forward(const Oracle::Layer& layer, Row& x);
  Row head(const Row& x) { return rounder_.product(m_.output_, normed(x, m_.output_norm_)); }

  LayerAttention attention_of(int layer, const Projected& p, std::int64_t n_prompt) const;
  std::vector<std::int32_t> filtered(std::span<const std::int32_t> prompt);
  void store(OracleLayer& out, const std::vector<std::vector<std::int32_t>>& keep, const Projected& p);
  Row decode(std::int32_t token, std::int64_t position);
  Row cached(const Row& row, std::size_t kv_head);

  const Oracle& m_;
  const OracleRun& run_;
  Rounder rounder_;
  OracleResult result_;
};

OraclePass::Row OraclePass::normed(const Row& x, const Row& weight) const {
  double sum = 0;
  for (double v : x) sum += v * v;
  const double scale = 1 / std::sqrt(sum / double(x.size()) + double(m_.config_.rms_eps));
  Row y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * weight[i];
  return y;
}

void OraclePass::rotate(Row& x, std::int64_t heads, std::int64_t position) const {
  const std::int64_t d = m_.config_.head_dim;
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t i = 0; i < d / 2; ++i) {
      const double angle = double(position) * m_.config_.rope_inv_freq[std::size_t(i)];
      const double c = std::cos(angle) * double(m_.config_.rope_magnitude);
      const double s = std::sin(angle) * double(m_.config_.rope_magnitude);
      double& a = x[std::size_t(h * d + 2 * i)];
      double& b = x[std::size_t(h * d + 2 * i + 1)];
      const double a0 = a, b0 = b;
      a = a0 * c - b0 * s;
      b = a0 * s + b0 * c;
    }
  }
}

OraclePass::Row OraclePass::embedding(std::int32_t token) const {
  const std::size_t d = std::size_t(m_.config_.n_embd), start = std::size_t(token) * d;
  return Row(m_.embedding_.begin() + std::ptrdiff_t(start), m_.embedding_.begin() + std::ptrdiff_t(start + d));
}

OraclePass::Projected OraclePass::project(const Oracle::Layer& layer, const Matrix& x,
                                          const std::vector<std::int32_t>& positions) {
  Projected p;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Row h = normed(x[i], layer.attn_norm);
    p.q.push_back(rounder_.product(layer.q, h));
    p.k.push_back(rounder_.product(layer.k, h));
    p.v.push_back(rounder_.elements(rounder_.product(layer.v, h), rounder_.size().attention));
    rotate(p.q.back(), m_.config_.n_head, positions[i]);
    rotate(p.k.back(), m_.config_.n_head_kv, positions[i]);
    p.q.back() = rounder_.elements(p.q.back(), rounder_.size().attention);
    p.k.back() = rounder_.elements(p.k.back(), rounder_.size().attention);
  }
  return p;
}

/// softmax over j < visible of q·k_j·scale, where k_j lies in columns [column, column + d) of keys[j].
OraclePass::Row OraclePass::weights(const double* q, const Matrix& keys, std::size_t column,
                                    std::int64_t visible) const {
  Row z(static_cast<std::size_t>(visible));
  double most = -INFINITY, sum = 0;
  for (std::size_t j = 0; j < z.size(); ++j) {
    double dot = 0;
    for (std::size_t e = 0; e < std::size_t(m_.config_.head_dim); ++e) dot += q[e] * keys[j][column + e];
    most = std::max(most, z[j] = dot * m_.scale_);
  }
  for (double& v : z) sum += v = std::exp(v - most);
  for (double& v : z) v /= sum;
  return z;
}

/// Attention of every row over the rows up to it, o_proj, residual.
void OraclePass::attend(const Oracle::Layer& layer, const Projected& p, Matrix& x) {
  const std::size_t d = std::size_t(m_.config_.head_dim);
  for (std::size_t i = 0; i < x.size(); ++i) {
    Row attended(std::size_t(m_.config_.q_dim()), 0.0);
    for (int h = 0; h < m_.config_.n_head; ++h) {
      const std::size_t k = std::size_t(h / m_.config_.group());
      const Row exact = weights(&p.q[i][std::size_t(h) * d], p.k, k * d, std::int64_t(i) + 1);
      const Row a = rounder_.elements(exact, rounder_.size().attention);
      for (std::size_t j = 0; j <= i; ++j)
        for (std::size_t e = 0; e < d; ++e) attended[std::size_t(h) * d + e] += a[j] * p.v[j][k * d + e];
    }
    const Row o = rounder_.product(layer.o, attended);
    for (std::size_t e = 0; e < o.size(); ++e) x[i][e] += o[e];
  }
}

void OraclePass::feed_forward(const Oracle::Layer& layer, Row& x) {
  const Row h = normed(x, layer.ffn_norm);
  Row gate = rounder_.product(layer.gate, h);
  const Row up = rounder_.product(layer.up, h);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  const Row down = rounder_.product(layer.down, gate);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += down[i];
}

LayerAttention OraclePass::attention_of(int layer, const Projected& p, std::int64_t n_prompt) const {
  LayerAttention out;
  out.layer = layer;
  out.n_layer = m_.config_.n_layer;
  out.heads = m_.config_.n_head;
  out.heads_kv = m_.config_.n_head_kv;
  out.n = std::int64_t(p.k.size());
  out.n_prompt = n_prompt;
  const std::size_t d = std::size_t(m_.config_.head_dim);
  const int group = m_.config_.group();
  out.weights = [this, &p, d, group](int h, std::int64_t i, std::int64_t visible) {
    return weights(&p.q[std::size_t(i)][std::size_t(h) * d], p.k, std::size_t(h / group) * d, visible);
  };
  out.last_logits = [&p, d, group](int h) {
    Row u;
    for (const Row& key : p.k) {
      const auto q = p.q.back().begin() + std::ptrdiff_t(std::size_t(h) * d);
      u.push_back(
          std::inner_product(q, q + std::ptrdiff_t(d), key.begin() + std::ptrdiff_t(std::size_t(h / group) * d), 0.0));
    }
    return u;
  };
  return out;
}

OraclePass::Row OraclePass::cached(const Row& row, std::size_t kv_head) {
  const auto first = row.begin() + std::ptrdiff_t(kv_head) * m_.config_.head_dim;
  return rounder_.cached(Row(first, first + m_.config_.head_dim));
}

/// The rows that stay, per stored head, and the mass that they hold.
void OraclePass::store(OracleLayer& out, const std::vector<std::vector<std::int32_t>>& keep, const Projected& p) {
  const std::size_t heads = std::size_t(m_.config_.n_head), stored = keep.size();
  for (std::size_t s = 0; s < stored; ++s) {
    std::vector<std::int32_t> kept;
    Matrix keys, values;
    for (std::int32_t r : keep[s]) {
      const std::size_t kv_head = s * std::size_t(m_.config_.n_head_kv) / stored;
      kept.push_back(out.positions[std::size_t(r)]);
      keys.push_back(cached(p.k[std::size_t(r)], kv_head));
      values.push_back(cached(p.v[std::size_t(r)], kv_head));
    }
    out.kept.push_back(kept);
    out.keys.push_back(keys);
    out.values.push_back(values);
    result_.kv_bytes_f16 += keep[s].size() * std::size_t(m_.config_.head_dim) * 4;
  }
  if (out.raw.empty()) return;
  const double rows = double(scoring_rows(run_.method, out.tokens_in));
  double covered = 0;
  for (std::size_t h = 0; h < heads; ++h) {
    double mass = rows;
    for (double v : out.raw[h]) mass -= v;
    for (std::int32_t r : keep[h * stored / heads])
      if (std::size_t(r) < out.raw[h].size()) mass += out.raw[h][std::size_t(r)];
    covered += mass / rows;
  }
  out.coverage = covered / double(heads);
}

OraclePass::Row OraclePass::decode(std::int32_t token, std::int64_t position) {
  Row x = embedding(token);
  const std::size_t d = std::size_t(m_.config_.head_dim), heads = std::size_t(m_.config_.n_head);
  for (std::size_t l = 0; l < m_.layers_.size(); ++l) {
    const Oracle::Layer& layer = m_.layers_[l];
    OracleLayer& cache = result_.layers[l];
    const Projected p = project(layer, {x}, {std::int32_t(position)});
    const std::size_t stored = cache.keys.size();
    for (std::size_t s = 0; s < stored; ++s) {
      cache.keys[s].push_back(cached(p.k[0], s * std::size_t(m_.config_.n_head_kv) / stored));
      cache.values[s].push_back(cached(p.v[0], s * std::size_t(m_.config_.n_head_kv) / stored));
    }
    Row attended(std::size_t(m_.config_.q_dim()), 0.0);
    for (std::size_t h = 0; h < heads; ++h) {
      const Matrix &keys = cache.keys[h * stored / heads], &values = cache.values[h * stored / heads];
      const Row a = weights(&p.q[0][h * d], keys, 0, std::int64_t(keys.size()));
      for (std::size_t j = 0; j < a.size(); ++j)
        for (std::size_t e = 0; e < d; ++e) attended[h * d + e] += a[j] * values[j][e];
    }
    const Row o = rounder_.product(layer.o, attended);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += o[i];
    feed_forward(layer, x);
  }
  return head(x);
}

/// GemFilter's first pass: the tokens of the second one.
std::vector<std::int32_t> OraclePass::filtered(std::span<const std::int32_t> prompt) {
  const std::int64_t length = std::int64_t(prompt.size()), k = filtered_tokens(run_.method, length);
  if (k == length) return {prompt.begin(), prompt.end()};
  Matrix x;
  for (std::int32_t token : prompt) x.push_back(embedding(token));
  std::vector<std::int32_t> positions(prompt.size());
  std::iota(positions.begin(), positions.end(), 0);
  for (int l = 0; l <= run_.method.filter_layer; ++l) {
    const Oracle::Layer& layer = m_.layers_[std::size_t(l)];
    const Projected p = project(layer, x, positions);
    if (l == run_.method.filter_layer) result_.filter_scores = filter_scores(attention_of(l, p, length));
    attend(layer, p, x);
    for (Row& row : x) feed_forward(layer, row);
  }
  result_.selected = run_.imposed ? run_.imposed->selected : top_indices(result_.filter_scores, k);
  std::vector<std::int32_t> tokens;
  for (std::int32_t i : result_.selected) tokens.push_back(prompt[std::size_t(i)]);
  return tokens;
}

OracleResult OraclePass::go(std::span<const std::int32_t> prompt) {
  const bool fastkv = run_.method.method == MethodName::fastkv;
  std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
  if (run_.method.method == MethodName::gemfilter) tokens = filtered(prompt);
  Matrix x;
  for (std::int32_t token : tokens) x.push_back(embedding(token));
  std::vector<std::int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  for (int l = 0; l < int(m_.layers_.size()); ++l) {
    const Oracle::Layer& layer = m_.layers_[std::size_t(l)];
    OracleLayer out;
    out.tokens_in = std::int64_t(x.size());
    out.positions = positions;
    const Projected p = project(layer, x, positions);
    Decision decision = decide(run_.method, attention_of(l, p, std::int64_t(prompt.size())), out);
    if (run_.imposed) {
      decision.next.reset();
      for (std::size_t s = 0; s < decision.keep.size(); ++s)
        decision.keep[s] = rows_of(positions, run_.imposed->kept[std::size_t(l)].at(s));
      if (fastkv && l == run_.method.tsp_layer && run_.imposed->tsp_kept)
        decision.next = rows_of(positions, *run_.imposed->tsp_kept);
      if (run_.method.method == MethodName::pyramidinfer && l + 1 < m_.config_.n_layer)  // all that enter are kept
        decision.next = rows_of(positions, run_.imposed->kept[std::size_t(l) + 1][0]);
    }
    store(out, decision.keep, p);
    attend(layer, p, x);
    for (Row& row : x) feed_forward(layer, row);
    if (decision.next) {  // the layer is whole; only now rows leave
      Matrix gathered;
      std::vector<std::int32_t> left;
      for (std::int32_t r : *decision.next) {
        gathered.push_back(x[std::size_t(r)]);
        left.push_back(positions[std::size_t(r)]);
      }
      x = gathered;
      positions = left;
      if (fastkv) {
        result_.tsp_layer = l;
        result_.tsp_kept = positions;
      }
    }
    out.hidden = x.back();
    result_.layers.push_back(std::move(out));
  }
  if (run_.prompt_logits)
    for (const Row& row : x) result_.prompt_logits.push_back(head(row));
  result_.logits = head(x.back());
  result_.next_position = std::int64_t(tokens.size());
  Row logits = result_.logits;
  for (int t = 0; t < run_.n_generate; ++t) {
    const std::int32_t best = best_tokens(logits, 1)[0];
    result_.generated.push_back(best);
    if (t + 1 == run_.n_generate) break;
    const std::int32_t fed = std::size_t(t) < run_.feed.size() ? run_.feed[std::size_t(t)] : best;
    logits = decode(fed, result_.next_position + t);
    result_.decode_logits.push_back(logits);
  }
  return std::move(result_);
}

OracleResult Oracle::run(std::span<const std::int32_t> prompt, const OracleRun& options) const {
  return OraclePass(*this, options).go(prompt);
}

}  // namespace fastkv::test
