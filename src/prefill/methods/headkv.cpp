// HeadKV's table and the budgets it gives.
#include "prefill/methods/headkv.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <sstream>

#include "core/check.hpp"
#include "core/json.hpp"

namespace fastkv {

LayerPlan HeadKv::plan(int layer, std::int64_t n) const {
  if (!compresses(n)) return {n, n, n, {}};
  // cap[ℓ, h] = round(a[ℓ, h]·pool + min): a pool that heads share by importance above what each has
  constexpr double kBeta = 1.01;
  const double c =
      double(params_.proportional ? std::int64_t(std::nearbyint(double(n) * params_.retention)) : params_.kv_budget);
  const double base = std::floor(c / kBeta), pool = base * n_layer_ * heads_, least = c - base;
  std::vector<std::int64_t> caps;
  for (int h = 0; h < heads_; ++h)
    caps.push_back(std::int64_t(std::nearbyint(params_.head_shares[std::size_t(layer * heads_ + h)] * pool + least)));
  LayerPlan plan{n, n, 0, {}};
  const int sharing = heads_ / stored_heads();  // per key/value head: the mean of its group
  for (int h = 0; h < heads_; h += sharing) {
    const auto sum = std::accumulate(caps.begin() + h, caps.begin() + h + sharing, std::int64_t(0));
    const auto cap = std::int64_t(std::nearbyint(double(sum) / sharing));
    plan.head_kept.push_back(clamped(cap + params_.window, n));  // the window is on top
  }
  const auto total = std::accumulate(plan.head_kept.begin(), plan.head_kept.end(), std::int64_t(0));
  plan.kept = (total + stored_heads() - 1) / stored_heads();
  return plan;
}

std::vector<double> read_head_shares(const std::string& path, int n_layer, int n_head) {
  std::ifstream file(path);
  check(file.good(), ErrorCode::io, "--head-budgets ", path, ": cannot open");
  std::stringstream text;
  text << file.rdbuf();
  const Json json = Json::parse(text.str(), nullptr, false);
  check(json.is_object(), ErrorCode::bad_file, path, ": expected a JSON object {\"layer-head\": [values]}, found ",
        json.is_discarded() ? "text that is not JSON" : json.type_name());
  std::vector<double> shares;
  for (int l = 0; l < n_layer; ++l)
    for (int h = 0; h < n_head; ++h) {
      const std::string key = concat(l, '-', h);
      check(json.contains(key), ErrorCode::bad_file, path, ": expected an entry for each of ", n_layer, " layers and ",
            n_head, " heads, found none for \"", key, '"');
      const Json& values = json[key];
      double sum = 0;
      const bool numbers =
          values.is_array() && !values.empty() && std::all_of(values.begin(), values.end(), [&](const Json& v) {
            if (v.is_number()) sum += v.get<double>();
            return v.is_number();
          });
      check(numbers && std::isfinite(sum) && sum >= 0, ErrorCode::bad_file, path, ": \"", key,
            "\": expected a list of numbers that is not empty nor negative in sum, found ", dump(values).substr(0, 40));
      shares.push_back(sum / double(values.size()));
    }
  check(json.size() == shares.size(), ErrorCode::bad_file, path, ": expected ", shares.size(), " entries (", n_layer,
        " layers of ", n_head, " heads), found ", json.size());
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  check(total > 0, ErrorCode::bad_file, path, ": expected some head above 0, found all 0");
  for (double& share : shares) share /= total;
  return shares;
}

}  // namespace fastkv
