// PyramidKV's budgets.
#include "prefill/methods/pyramidkv.hpp"

#include <algorithm>

namespace fastkv {

// b = C − w rows on average: max = 2b − b/β in the first layer, falling in equal steps; the window is on top.
LayerPlan PyramidKv::plan(int layer, std::int64_t n) const {
  constexpr std::int64_t kBeta = 20;
  if (!compresses(n)) return {n, n, n, {}};
  const std::int64_t w = params_.window, b = std::max<std::int64_t>(budget(n) - w, 0);
  std::int64_t scored = b;
  if (n >= 2 * b) {
    std::int64_t least = b / kBeta, most = 2 * b - least;
    if (most >= n - w) most = n - w, least = 2 * b - most;
    const std::int64_t step = n_layer_ > 1 ? (most - least) / (n_layer_ - 1) : 0;
    scored = most - layer * step;
  }
  return {n, n, clamped(scored + w, n), {}};
}

}  // namespace fastkv
