// AdaKV's budgets.
#include "prefill/methods/adakv.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fastkv {

std::vector<std::int64_t> AdaKv::kept_rows(const LayerPlan& plan, const Scores& pooled, Backend& backend) const {
  constexpr double kFloor = 0.2;
  const std::int64_t w = params_.window, b = std::max<std::int64_t>(plan.kept - w, 0), n = pooled.n;
  const std::size_t heads = std::size_t(pooled.heads);
  if (b == 0 || b >= n) return {plan.kept};
  std::vector<float> scores = backend.read(pooled);

  // each head's scores weigh as much as its best b hold of all
  std::vector<float> order(static_cast<std::size_t>(n));
  for (std::size_t h = 0; h < heads; ++h) {
    float* s = scores.data() + h * std::size_t(n);
    std::copy(s, s + n, order.begin());
    std::nth_element(order.begin(), order.begin() + b - 1, order.end(), std::greater<>());
    const double best = std::accumulate(order.begin(), order.begin() + b, 0.0);
    const double all = std::accumulate(order.begin(), order.end(), 0.0);
    for (std::int64_t j = 0; j < n; ++j) s[j] = float(s[j] * (best / all));
  }

  // cnt_h: how many of the H·b best of all heads are head h's (ties to the lower head); cap_h = round(0.8·cnt_h + f)
  std::vector<std::int64_t> at(scores.size());
  std::iota(at.begin(), at.end(), 0);
  const auto wanted = std::ptrdiff_t(heads) * b;
  std::nth_element(at.begin(), at.begin() + wanted - 1, at.end(), [&](std::int64_t i, std::int64_t j) {
    const float a = scores[std::size_t(i)], c = scores[std::size_t(j)];
    return a != c ? a > c : i < j;
  });
  std::vector<std::int64_t> kept(heads, 0);
  for (std::ptrdiff_t i = 0; i < wanted; ++i) ++kept[std::size_t(at[std::size_t(i)] / n)];
  const double floor = double(std::int64_t(double(b) * kFloor));
  for (std::int64_t& rows : kept)
    rows = clamped(std::int64_t(std::nearbyint(double(rows) * (1 - kFloor) + floor)) + w, n + w);
  return kept;
}

}  // namespace fastkv
