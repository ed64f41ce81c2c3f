// The forward pass of the oracle: plain loops, one token row at a time.
#include "reference/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/quant_blocks.hpp"

namespace fastkv::test {
namespace {

std::vector<double> dequantized(const TensorView& view) {
  std::vector<float> row(std::size_t(view.cols));
  std::vector<double> out;
  out.reserve(std::size_t(view.rows * view.cols));
  for (std::int64_t r = 0; r < view.rows; ++r) {
    dequantize_row(view.type, view.data + std::size_t(r) * row_bytes(view.type, row.size()), row.data(), row.size());
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

/// x padded with zeros to a multiple of 64, each block of 64 multiplied by the Hadamard matrix / 8, its own inverse.
std::vector<double> rotated(std::vector<double> x) {
  x.resize((x.size() + 63) / 64 * 64);
  for (std::size_t bit = 1; bit < 64; bit *= 2) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (i & bit) continue;
      const double a = x[i], b = x[i + bit];
      x[i] = (a + b) / std::sqrt(2.0);
      x[i + bit] = (a - b) / std::sqrt(2.0);
    }
  }
  return x;
}

Oracle::Linear linear(const TensorView& weight, const TensorView& bias) {
  Oracle::Linear out;
  out.in = weight.cols;
  out.out = weight.rows;
  const std::vector<double> w = dequantized(weight);
  out.weight.resize(w.size());
  out.step.assign(std::size_t((out.in + 63) / 64 * 2 * out.out), 0);
  for (std::int64_t o = 0; o < out.out; ++o) {
    const auto row = w.begin() + o * out.in;
    for (std::int64_t i = 0; i < out.in; ++i) out.weight[std::size_t(i * out.out + o)] = row[i];
    const std::vector<double> turned = rotated({row, row + out.in});
    for (std::size_t i = 0; i < turned.size(); ++i) {
      double& step = out.step[i / 32 * std::size_t(out.out) + std::size_t(o)];
      step = std::max(step, std::fabs(turned[i]));
    }
  }
  if (bias) out.bias = dequantized(bias);
  return out;
}

}  // namespace

Rounding Rounding::f32() {
  // Inner products of length n lose about sqrt(n) roundings of 2^-24; n ≤ 256 in the tests' models.
  const double eps = std::ldexp(1.0, -24);
  Rounding r;
  r.activation = 16 * eps;
  r.attention = 16 * eps;
  return r;
}

Rounding Rounding::bf16() {
  const double half_ulp = std::ldexp(1.0, -8);  // largest relative error of rounding to 8 significant bits: 2^-9 … 2^-8
  Rounding r;
  r.activation = r.weight = r.attention = half_ulp;
  r.cache = std::ldexp(1.0, -11);
  return r;
}

Rounding Rounding::int8() {
  Rounding r = bf16();  // attention as in bf16
  r.activation = r.weight = 0;
  // Half a step, the coarsest of all levels: 127 steps to the largest activation of 128; 63 to the largest weight of 32
  // (127 of 128 where the dot product is one instruction; decode takes quantised weights exactly).
  r.activation_i8 = 1.0 / 254;
  r.weight_i8 = 1.0 / 126;
  return r;
}

Oracle::Oracle(const ModelConfig& config, const ModelTensors& tensors) : config_(config) {
  // The file's scale is a float; where it is the usual one, the double is meant.
  const double usual = 1.0 / std::sqrt(double(config.head_dim));
  scale_ = config.attention_scale == float(usual) ? usual : double(config.attention_scale);
  embedding_ = dequantized(tensors.token_embd);
  output_norm_ = dequantized(tensors.output_norm);
  output_ = linear(tensors.output, tensors.output_bias);
  for (const LayerTensors& t : tensors.layers) {
    layers_.push_back({dequantized(t.attn_norm), dequantized(t.ffn_norm), linear(t.q, t.q_bias), linear(t.k, t.k_bias),
                       linear(t.v, t.v_bias), linear(t.o, t.o_bias), linear(t.gate, t.gate_bias),
                       linear(t.up, t.up_bias), linear(t.down, t.down_bias)});
  }
}

/// One run: the residual stream, the caches and the random source of imitated rounding.
class OraclePass {
 public:
  OraclePass(const Oracle& model, const OracleRun& run) : m_(model), run_(run), random_(run.rounding.seed) {}

  OracleResult go(std::span<const std::int32_t> prompt);

 private:
  using Row = std::vector<double>;
  struct Projected {
    Matrix q, k, v;  ///< [n][H·d], [n][K·d], [n][K·d], q and k rotated
  };

  double jitter() { return std::uniform_real_distribution<double>(-1, 1)(random_); }
  Row rounded(Row x, double relative) {
    if (relative > 0)
      for (double& v : x) v *= 1 + relative * jitter();
    return x;
  }
  Row rounded_blocks(Row x, double share) {
    for (std::size_t b = 0; share > 0 && b < x.size(); b += 32) {
      double most = 0;
      const std::size_t end = std::min(x.size(), b + 32);
      for (std::size_t i = b; i < end; ++i) most = std::max(most, std::fabs(x[i]));
      for (std::size_t i = b; i < end; ++i) x[i] += share * most * jitter();
    }
    return x;
  }
  /// The same in groups of 128 of the rotated inputs.
  Row rounded_groups(const Row& x, double share) {
    if (share == 0) return x;
    Row y = rotated(x);
    for (std::size_t g = 0; g < y.size(); g += 128) {
      double most = 0;
      const std::size_t end = std::min(y.size(), g + 128);
      for (std::size_t i = g; i < end; ++i) most = std::max(most, std::fabs(y[i]));
      for (std::size_t i = g; i < end; ++i) y[i] += share * most * jitter();
    }
    y = rotated(y);
    y.resize(x.size());
    return y;
  }
  Row apply(const Oracle::Linear& w, const Row& input);
  Row normed(const Row& x, const Row& weight) const;
  void rotate(Row& x, std::int64_t heads, std::int64_t position) const;
  Row embedding(std::int32_t token) const;
  Projected project(const Oracle::Layer& layer, const Matrix& x, const std::vector<std::int32_t>& positions);
  Row weights(const double* q, const Matrix& keys, std::size_t column, std::int64_t visible) const;
  void feed_forward(const Oracle::Layer& layer, Row& x);
  Row head(const Row& x) { return apply(m_.output_, normed(x, m_.output_norm_)); }

  void score(OracleLayer& out, const Projected& p, std::int64_t n);
  Matrix window_mass(const Projected& p, std::int64_t n, std::int64_t window) const;
  void keep(OracleLayer& out, int layer, const Projected& p, std::int64_t prompt_length);
  std::vector<std::int32_t> propagated(OracleLayer& out, const Projected& p);
  Row decode(std::int32_t token, std::int64_t position);
  std::vector<std::int32_t> rows_of(const OracleLayer& layer, const std::vector<std::int32_t>& positions) const;

  const Oracle& m_;
  const OracleRun& run_;
  std::mt19937_64 random_;
  OracleResult result_;
  bool skipped_ = false;  ///< the layer at work took the "n < C" exit
};

OraclePass::Row OraclePass::apply(const Oracle::Linear& w, const Row& input) {
  const Rounding& r = run_.rounding;
  const Row x = rounded_groups(rounded(input, r.activation), r.activation_i8);
  Row y = w.bias.empty() ? Row(std::size_t(w.out), 0.0) : w.bias;
  Row variance(r.weight > 0 || r.weight_i8 > 0 ? std::size_t(w.out) : 0, 0.0);
  for (std::int64_t i = 0; i < w.in; ++i) {
    const double xi = x[std::size_t(i)];
    const double* row = &w.weight[std::size_t(i * w.out)];
    for (std::int64_t o = 0; o < w.out; ++o) y[std::size_t(o)] += xi * row[o];
    if (variance.empty()) continue;
    const double* step = &w.step[std::size_t(i / 32 * w.out)];
    for (std::int64_t o = 0; o < w.out; ++o) {
      const double error = xi * (r.weight * row[o] + r.weight_i8 * step[o]);
      variance[std::size_t(o)] += error * error / 3;  // of a uniform error
    }
  }
  for (std::size_t o = 0; o < variance.size(); ++o) y[o] += std::sqrt(variance[o]) * std::sqrt(3.0) * jitter();
  return y;
}

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
    p.q.push_back(apply(layer.q, h));
    p.k.push_back(apply(layer.k, h));
    p.v.push_back(rounded(apply(layer.v, h), run_.rounding.attention));
    rotate(p.q.back(), m_.config_.n_head, positions[i]);
    rotate(p.k.back(), m_.config_.n_head_kv, positions[i]);
    p.q.back() = rounded(p.q.back(), run_.rounding.attention);
    p.k.back() = rounded(p.k.back(), run_.rounding.attention);
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

void OraclePass::feed_forward(const Oracle::Layer& layer, Row& x) {
  const Row h = normed(x, layer.ffn_norm);
  Row gate = apply(layer.gate, h);
  const Row up = apply(layer.up, h);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  const Row down = apply(layer.down, gate);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += down[i];
}

/// S [H][n − window]: attention mass of the last `window` rows, softmax over all columns they see (0.2).
Matrix OraclePass::window_mass(const Projected& p, std::int64_t n, std::int64_t window) const {
  Matrix mass(std::size_t(m_.config_.n_head), Row(std::size_t(n - window), 0.0));
  const std::size_t d = std::size_t(m_.config_.head_dim);
  for (int h = 0; h < m_.config_.n_head; ++h) {
    const std::size_t column = std::size_t(h / m_.config_.group()) * d;
    for (std::int64_t i = n - window; i < n; ++i) {
      const Row a = weights(&p.q[std::size_t(i)][std::size_t(h) * d], p.k, column, i + 1);
      for (std::int64_t j = 0; j < n - window; ++j) mass[std::size_t(h)][std::size_t(j)] += a[std::size_t(j)];
    }
  }
  return mass;
}

void OraclePass::score(OracleLayer& out, const Projected& p, std::int64_t n) {
  const MethodParams& method = run_.method;
  const int group = m_.config_.group();
  out.raw = window_mass(p, n, method.window);
  for (const Row& s : out.raw) out.pooled.push_back(pooled(s, method.pooling, method.kernel));
  for (int k = 0; k < m_.config_.n_head_kv; ++k) {
    Row g = out.pooled[std::size_t(k * group)];
    for (int h = k * group + 1; h < (k + 1) * group; ++h) {
      for (std::size_t j = 0; j < g.size(); ++j) {
        const double v = out.pooled[std::size_t(h)][j];
        g[j] = method.group_reduce == GroupReduce::sum ? g[j] + v : std::max(g[j], v);
      }
    }
    out.grouped.push_back(g);
  }
}

namespace {

/// The first `sinks`, the last `window` and the best others of n rows, k in all, ascending.
std::vector<std::int32_t> choose(const std::vector<double>& scores, std::int64_t n, std::int64_t k, std::int64_t sinks,
                                 std::int64_t window) {
  const std::int64_t first = std::min(sinks, k - window);
  const std::vector<double> rest(scores.begin() + first, scores.end());
  std::vector<std::int32_t> rows;
  for (std::int64_t i = 0; i < first; ++i) rows.push_back(std::int32_t(i));
  for (std::int32_t i : top_indices(rest, k - window - first)) rows.push_back(std::int32_t(i + first));
  for (std::int64_t i = n - window; i < n; ++i) rows.push_back(std::int32_t(i));
  return rows;
}

}  // namespace

std::vector<std::int32_t> OraclePass::rows_of(const OracleLayer& layer,
                                              const std::vector<std::int32_t>& positions) const {
  std::vector<std::int32_t> rows;
  for (std::int32_t p : positions) {
    const auto at = std::lower_bound(layer.positions.begin(), layer.positions.end(), p);
    if (at == layer.positions.end() || *at != p)
      throw std::runtime_error("imposed position " + std::to_string(p) + " did not enter the layer");
    rows.push_back(std::int32_t(at - layer.positions.begin()));
  }
  return rows;
}

/// Rows of K and V that stay, per key/value head (spec/methods.md 2.2, clamps of section 3).
void OraclePass::keep(OracleLayer& out, int layer, const Projected& p, std::int64_t prompt_length) {
  const MethodParams& method = run_.method;
  const std::int64_t n = out.tokens_in, w = method.window;
  const bool after = layer > method.tsp_layer;
  std::int64_t budget = method.kv_budget;
  if (method.proportional) {
    if (!after) {
      budget = std::int64_t(double(n) * method.retention);
    } else if (method.tsp_by_rate) {
      budget = std::int64_t(double(n) * (method.retention / method.tsp_rate));
    } else {
      budget = std::min(n, std::int64_t(double(prompt_length) * method.retention));
    }
  }
  const bool full = method.method == MethodName::full;
  skipped_ = full || n <= w || n < budget;
  const std::int64_t capacity = std::min(n, std::max(budget, w + method.sinks));
  if (!full && n > w) score(out, p, n);
  double covered = 0;
  for (int k = 0; k < m_.config_.n_head_kv; ++k) {
    std::vector<std::int32_t> rows;
    if (run_.imposed) {
      rows = rows_of(out, run_.imposed->kept[std::size_t(layer)][std::size_t(k)]);
    } else if (skipped_) {
      for (std::int64_t i = 0; i < n; ++i) rows.push_back(std::int32_t(i));
    } else {
      rows = choose(out.grouped[std::size_t(k)], n, capacity, method.sinks, w);
    }
    const std::size_t d = std::size_t(m_.config_.head_dim), at = std::size_t(k) * d;
    std::vector<std::int32_t> kept;
    Matrix keys, values;
    for (std::int32_t r : rows) {
      kept.push_back(out.positions[std::size_t(r)]);
      const Row& kr = p.k[std::size_t(r)];
      const Row& vr = p.v[std::size_t(r)];
      const Rounding& rounding = run_.rounding;
      auto part = [&](const Row& row) {
        Row piece(row.begin() + std::ptrdiff_t(at), row.begin() + std::ptrdiff_t(at + d));
        return rounded_blocks(rounded(piece, rounding.cache), rounding.cache_i8);
      };
      keys.push_back(part(kr));
      values.push_back(part(vr));
    }
    out.kept.push_back(kept);
    out.keys.push_back(keys);
    out.values.push_back(values);
    result_.kv_bytes_f16 += rows.size() * d * 4;
    if (out.raw.empty()) continue;
    for (int h = k * m_.config_.group(); h < (k + 1) * m_.config_.group(); ++h) {
      const Row& s = out.raw[std::size_t(h)];
      double mass = double(w);
      for (double v : s) mass -= v;
      for (std::int32_t r : rows)
        if (std::size_t(r) < s.size()) mass += s[std::size_t(r)];
      covered += mass / double(w);
    }
  }
  if (!out.raw.empty()) out.coverage = covered / m_.config_.n_head;
}

/// Rows that go on after the TSP layer; all of them when it does not fire.
std::vector<std::int32_t> OraclePass::propagated(OracleLayer& out, const Projected& p) {
  const MethodParams& method = run_.method;
  const std::int64_t n = out.tokens_in, w = method.tsp_window;
  const std::int64_t wanted = method.tsp_by_rate ? std::int64_t(double(n) * method.tsp_rate) : method.tsp_tokens;
  const std::int64_t count = std::min(n, std::max<std::int64_t>(wanted, w + method.sinks));
  std::vector<std::int32_t> rows;
  const bool fires = !skipped_ && n > w && n > count;
  if (fires) {
    out.propagation.assign(std::size_t(n - w), 0.0);
    for (const Row& s : window_mass(p, n, w)) {
      const Row one = pooled(s, method.pooling, method.kernel, method.tsp_shift);
      for (std::size_t j = 0; j < one.size(); ++j) out.propagation[j] += one[j];
    }
  }
  if (run_.imposed ? run_.imposed->tsp_kept.has_value() : fires) {
    rows = run_.imposed ? rows_of(out, *run_.imposed->tsp_kept) : choose(out.propagation, n, count, method.sinks, w);
    for (std::int32_t r : rows) result_.tsp_kept.push_back(out.positions[std::size_t(r)]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) rows.push_back(std::int32_t(i));
  }
  return rows;
}

OraclePass::Row OraclePass::decode(std::int32_t token, std::int64_t position) {
  Row x = embedding(token);
  const std::size_t d = std::size_t(m_.config_.head_dim);
  for (std::size_t l = 0; l < m_.layers_.size(); ++l) {
    const Oracle::Layer& layer = m_.layers_[l];
    OracleLayer& cache = result_.layers[l];
    const Projected p = project(layer, {x}, {std::int32_t(position)});
    Row attended(std::size_t(m_.config_.q_dim()), 0.0);
    for (int h = 0; h < m_.config_.n_head; ++h) {
      const std::size_t k = std::size_t(h / m_.config_.group());
      if (h % m_.config_.group() == 0) {
        auto part = [&](const Row& row) {
          const Row piece(row.begin() + std::ptrdiff_t(k * d), row.begin() + std::ptrdiff_t(k * d + d));
          return rounded_blocks(rounded(piece, run_.rounding.cache), run_.rounding.cache_i8);
        };
        cache.keys[k].push_back(part(p.k[0]));
        cache.values[k].push_back(part(p.v[0]));
      }
      const Row a = weights(&p.q[0][std::size_t(h) * d], cache.keys[k], 0, std::int64_t(cache.keys[k].size()));
      for (std::size_t j = 0; j < a.size(); ++j)
        for (std::size_t e = 0; e < d; ++e) attended[std::size_t(h) * d + e] += a[j] * cache.values[k][j][e];
    }
    const Row o = apply(layer.o, attended);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += o[i];
    feed_forward(layer, x);
  }
  return head(x);
}

OracleResult OraclePass::go(std::span<const std::int32_t> prompt) {
  const std::int64_t length = std::int64_t(prompt.size());
  const std::size_t d = std::size_t(m_.config_.head_dim);
  Matrix x;
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < length; ++i) {
    x.push_back(embedding(prompt[std::size_t(i)]));
    positions.push_back(std::int32_t(i));
  }
  for (int l = 0; l < int(m_.layers_.size()); ++l) {
    const Oracle::Layer& layer = m_.layers_[std::size_t(l)];
    OracleLayer out;
    out.tokens_in = std::int64_t(x.size());
    out.positions = positions;
    const Projected p = project(layer, x, positions);
    keep(out, l, p, length);
    std::vector<std::int32_t> rows;
    const bool tsp_here = run_.method.method == MethodName::fastkv && l == run_.method.tsp_layer;
    if (tsp_here) rows = propagated(out, p);
    for (std::size_t i = 0; i < x.size(); ++i) {
      Row attended(std::size_t(m_.config_.q_dim()), 0.0);
      for (int h = 0; h < m_.config_.n_head; ++h) {
        const std::size_t k = std::size_t(h / m_.config_.group());
        const Row exact = weights(&p.q[i][std::size_t(h) * d], p.k, k * d, std::int64_t(i) + 1);
        const Row a = rounded(exact, run_.rounding.attention);
        for (std::size_t j = 0; j <= i; ++j)
          for (std::size_t e = 0; e < d; ++e) attended[std::size_t(h) * d + e] += a[j] * p.v[j][k * d + e];
      }
      const Row o = apply(layer.o, attended);
      for (std::size_t e = 0; e < o.size(); ++e) x[i][e] += o[e];
    }
    for (Row& row : x) feed_forward(layer, row);
    if (tsp_here && rows.size() < x.size()) {  // the layer is whole; only now rows leave
      Matrix gathered;
      std::vector<std::int32_t> left;
      for (std::int32_t r : rows) {
        gathered.push_back(x[std::size_t(r)]);
        left.push_back(positions[std::size_t(r)]);
      }
      x = gathered;
      positions = left;
    }
    if (!result_.tsp_kept.empty()) result_.tsp_layer = run_.method.tsp_layer;
    result_.layers.push_back(std::move(out));
  }
  if (run_.prompt_logits)
    for (const Row& row : x) result_.prompt_logits.push_back(head(row));
  result_.logits = head(x.back());
  result_.next_position = length;
  Row logits = result_.logits;
  for (int t = 0; t < run_.n_generate; ++t) {
    const std::int32_t best = best_tokens(logits, 1)[0];
    result_.generated.push_back(best);
    if (t + 1 == run_.n_generate) break;
    const std::int32_t fed = std::size_t(t) < run_.feed.size() ? run_.feed[std::size_t(t)] : best;
    logits = decode(fed, length + t);
    result_.decode_logits.push_back(logits);
  }
  return std::move(result_);
}

OracleResult Oracle::run(std::span<const std::int32_t> prompt, const OracleRun& options) const {
  return OraclePass(*this, options).go(prompt);
}

}  // namespace fastkv::test
