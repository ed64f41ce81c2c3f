// Runs the oracle with random rounding and collects the deviations.
#include "support/spread.hpp"

#include <algorithm>

namespace fastkv::test {

Spread measure_spread(const Oracle& oracle, std::span<const std::int32_t> prompt, const OracleRun& run,
                      const OracleResult& exact, const Rounding& rounding, int runs) {
  Imposed decisions;
  for (const OracleLayer& layer : exact.layers) decisions.kept.push_back(layer.kept);
  if (!exact.tsp_kept.empty()) decisions.tsp_kept = exact.tsp_kept;
  decisions.selected = exact.selected;
  OracleRun again = run;
  again.imposed = &decisions;
  again.rounding = rounding;
  again.feed = run.feed;
  for (std::size_t t = again.feed.size(); t < exact.generated.size(); ++t) again.feed.push_back(exact.generated[t]);

  const std::size_t n_layer = exact.layers.size();
  Spread out;
  out.score.assign(n_layer, 0);
  out.row.assign(n_layer, 0);
  for (int r = 0; r < runs; ++r) {
    again.rounding.seed = std::uint64_t(r) + 1;
    const OracleResult other = oracle.run(prompt, again);
    out.logits = std::max(out.logits, rms_difference(other.logits, exact.logits));
    for (std::size_t t = 0; t < exact.decode_logits.size(); ++t)
      out.logits = std::max(out.logits, rms_difference(other.decode_logits[t], exact.decode_logits[t]));
    out.filter = std::max(out.filter, rms_difference(other.filter_scores, exact.filter_scores));
    for (std::size_t l = 0; l < n_layer; ++l) {
      auto compare = [&](const std::vector<double>& a, const std::vector<double>& b) {
        double sum = 0;
        for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(std::log(a[i] / b[i]), 2);
        if (!a.empty()) out.score[l] = std::max(out.score[l], std::sqrt(sum / double(a.size())));
      };
      for (std::size_t k = 0; k < exact.layers[l].grouped.size(); ++k)
        compare(other.layers[l].grouped[k], exact.layers[l].grouped[k]);
      compare(other.layers[l].propagation, exact.layers[l].propagation);
      for (std::size_t k = 0; k < exact.layers[l].keys.size(); ++k) {
        double sum = 0;
        std::size_t count = 0;
        for (std::size_t i = 0; i < exact.layers[l].keys[k].size(); ++i) {
          for (std::size_t e = 0; e < exact.layers[l].keys[k][i].size(); ++e, count += 2) {
            sum += std::pow(other.layers[l].keys[k][i][e] - exact.layers[l].keys[k][i][e], 2);
            sum += std::pow(other.layers[l].values[k][i][e] - exact.layers[l].values[k][i][e], 2);
          }
        }
        if (count > 0) out.row[l] = std::max(out.row[l], std::sqrt(sum / double(count)));
      }
    }
  }
  return out;
}

}  // namespace fastkv::test
