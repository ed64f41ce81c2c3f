// One method on one random model by the oracle, and what a backend's run must show to agree with it.
#pragma once

#include "support/backend_run.hpp"
#include "support/cases.hpp"
#include "support/random_model.hpp"
#include "support/spread.hpp"

namespace fastkv::test {

/// The oracle's run of a case, and how far an arithmetic that rounds like `rounding` may be from it
/// (support/spread.hpp).
class OracleCase {
 public:
  OracleCase(const RandomModel& model, const Oracle& oracle, const MethodCase& one, const Rounding& rounding,
             int spread_runs);

  /// FastKV or full by the tests' own loop over half-layers: every score, choice and cached row, and all logits.
  void expect_layers(Backend& backend) const;
  /// Any method by the engine's own prefill. `same_counts`: as many rows as the oracle are kept of each head (not where
  /// scores decide how many).
  void expect_prefill(Backend& backend, bool same_counts) const;

 private:
  /// The oracle with the decisions of a run imposed on it.
  OracleResult following(const BackendRun& found) const;

  const RandomModel& model_;
  const Oracle& oracle_;
  MethodCase case_;
  std::vector<std::int32_t> prompt_, feed_;
  OracleRun run_;
  OracleResult own_;
  Spread spread_;
};

}  // namespace fastkv::test
