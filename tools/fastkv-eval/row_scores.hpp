// How likely a row's continuation is in a run, and how far the run's distributions are from full's.
#pragma once

#include "core/json.hpp"
#include "fastkv-eval/rows.hpp"
#include "fastkv/engine.hpp"

namespace fastkv::tools {

/// `options` of a run that scores the row's opening and continuation; `logits`: so that it can be compared.
RunOptions row_options(RunOptions options, const Row& row, bool logits);

/// {"line", "task" if it has one, "prompt_tokens", "continuation_tokens", "nll", "greedy_equal", "coverage" where the
/// method scores, "kl_to_full" and "same_best_as_full" unless `full` is null, "prefill_ms"}; means over the
/// continuation's tokens. "greedy_equal": each token was the best one, so that a greedy answer goes on with all of
/// them.
OrderedJson row_scores(const Row& row, const RunResult& result, const RunResult* full);

}  // namespace fastkv::tools
