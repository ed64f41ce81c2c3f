// Pooling, top-k and the defaults of the methods, in double.
#include <algorithm>
#include <limits>
#include <numeric>

#include "reference/oracle.hpp"

namespace fastkv::test {

std::vector<std::int32_t> top_indices(const std::vector<double>& scores, std::int64_t k) {
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return scores[std::size_t(a)] > scores[std::size_t(b)]; });
  order.resize(std::size_t(std::clamp<std::int64_t>(k, 0, std::int64_t(scores.size()))));
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<double> pooled(const std::vector<double>& scores, Pooling pooling, int kernel, int shift) {
  const std::int64_t n = std::int64_t(scores.size()), before = kernel / 2 - shift, after = kernel / 2 + shift;
  std::vector<double> out(scores.size());
  for (std::int64_t j = 0; j < n; ++j) {
    double sum = 0, best = -std::numeric_limits<double>::infinity();
    for (std::int64_t t = std::max<std::int64_t>(0, j - after); t <= std::min(n - 1, j + before); ++t) {
      sum += scores[std::size_t(t)];
      best = std::max(best, scores[std::size_t(t)]);
    }
    out[std::size_t(j)] = pooling == Pooling::max ? best : sum / kernel;  // zeros beyond the ends are counted
  }
  return out;
}

std::vector<std::int32_t> best_tokens(const std::vector<double>& logits, std::size_t count) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logits[std::size_t(a)] > logits[std::size_t(b)]; });
  order.resize(std::min(count, order.size()));
  return order;
}

MethodParams full_method() {
  MethodParams params;
  params.method = MethodName::full;
  return params;
}

MethodParams method_defaults(MethodName method, int n_layer) {
  MethodParams params;
  params.method = method;
  params.proportional = true;
  params.retention = 0.1;
  params.tsp_layer = params.filter_layer = n_layer / 2 - 1;
  params.tsp_by_rate = true;
  params.tsp_rate = 0.2;
  params.window = params.tsp_window = 8;
  params.kernel = 7;
  params.pooling = Pooling::max;
  params.group_reduce = GroupReduce::sum;
  params.sinks = method == MethodName::streamingllm ? 4 : 0;
  params.granularity = Granularity::query_head;
  params.h2o_mask = H2oMask::causal;
  params.recent = 0.2;
  params.delta = 0.7;
  params.gamma = 1.2;
  return params;
}

MethodParams fastkv_defaults(int n_layer) { return method_defaults(MethodName::fastkv, n_layer); }

}  // namespace fastkv::test
