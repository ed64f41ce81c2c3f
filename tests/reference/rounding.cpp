// Sizes of rounding errors, and the errors.
#include "reference/rounding.hpp"

#include <algorithm>
#include <cmath>

namespace fastkv::test {

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
  // Half a step, the coarsest of all levels: 127 steps to the largest activation of 256; 63 to the largest weight of 32
  // (127 of 128 where the dot product is one instruction; decode takes quantised weights exactly).
  r.activation_i8 = 1.0 / 254;
  r.weight_i8 = 1.0 / 126;
  return r;
}

std::vector<double> Rounder::elements(std::vector<double> x, double relative) {
  if (relative > 0)
    for (double& v : x) v *= 1 + relative * jitter();
  return x;
}

std::vector<double> Rounder::cached(std::vector<double> row) {
  std::vector<double> x = elements(std::move(row), size_.cache);
  for (std::size_t b = 0; size_.cache_i8 > 0 && b < x.size(); b += 32) {
    double most = 0;
    const std::size_t end = std::min(x.size(), b + 32);
    for (std::size_t i = b; i < end; ++i) most = std::max(most, std::fabs(x[i]));
    for (std::size_t i = b; i < end; ++i) x[i] += size_.cache_i8 * most * jitter();
  }
  return x;
}

/// Shares of the largest of each 256 rotated inputs.
std::vector<double> Rounder::groups(const std::vector<double>& x, double share) {
  if (share == 0) return x;
  std::vector<double> y = rotated(x);
  for (std::size_t g = 0; g < y.size(); g += 256) {
    double most = 0;
    const std::size_t end = std::min(y.size(), g + 256);
    for (std::size_t i = g; i < end; ++i) most = std::max(most, std::fabs(y[i]));
    for (std::size_t i = g; i < end; ++i) y[i] += share * most * jitter();
  }
  y = rotated(y);
  y.resize(x.size());
  return y;
}

std::vector<double> Rounder::product(const Oracle::Linear& w, const std::vector<double>& input) {
  const Rounding& r = size_;
  const std::vector<double> x = groups(elements(input, r.activation), r.activation_i8);
  std::vector<double> y = w.bias.empty() ? std::vector<double>(std::size_t(w.out), 0.0) : w.bias;
  std::vector<double> variance(r.weight > 0 || r.weight_i8 > 0 ? std::size_t(w.out) : 0, 0.0);
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

}  // namespace fastkv::test
