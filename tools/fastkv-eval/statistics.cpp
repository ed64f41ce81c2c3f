// Means of scores with their standard errors.
#include "fastkv-eval/statistics.hpp"

#include <algorithm>
#include <cmath>

#include "common/format.hpp"

namespace fastkv::tools {

Mean mean_of(const std::vector<double>& values) {
  Mean m;
  const auto n = static_cast<double>(values.size());
  for (double value : values) m.mean += value;
  m.mean /= n;
  if (values.size() < 2) return m;
  double squares = 0;
  for (double value : values) squares += (value - m.mean) * (value - m.mean);
  m.error = std::sqrt(squares / (n - 1) / n);
  return m;
}

OrderedJson json_of(const Mean& m) {
  return {{"mean", m.mean}, {"standard_error", m.error ? OrderedJson(*m.error) : OrderedJson(nullptr)}};
}

std::string text_of(const Mean& m, int digits) {
  return format("%.*f", digits, m.mean) + (m.error ? format(" ± %.*f", digits, *m.error) : "");
}

std::vector<double> column(const std::vector<OrderedJson>& examples, const char* field) {
  std::vector<double> values;
  for (const OrderedJson& example : examples) {
    const auto found = example.find(field);
    if (found == example.end()) continue;
    values.push_back(found->is_boolean() ? found->get<bool>() : found->get<double>());
  }
  return values;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace fastkv::tools
