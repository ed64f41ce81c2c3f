// Scores of given continuations.
#include "fastkv-eval/row_scores.hpp"

#include <span>

#include "fastkv-eval/divergence.hpp"

namespace fastkv::tools {

RunOptions row_options(RunOptions options, const Row& row, bool logits) {
  options.step_logits = logits;
  options.continuation = row.opening;
  options.continuation.insert(options.continuation.end(), row.continuation.begin(), row.continuation.end());
  return options;
}

OrderedJson row_scores(const Row& row, const RunResult& result, const RunResult* full) {
  const auto tokens = static_cast<double>(row.continuation.size());
  double nll = 0, kl = 0, same = 0;
  bool greedy = true;
  for (std::size_t t = row.opening.size(); t < result.scores.size(); ++t) {
    nll -= result.scores[t].log_prob;
    greedy = greedy && result.scores[t].best;
    if (!full) continue;
    const std::size_t vocab = result.step_logits.size() / result.scores.size();
    const Divergence d = divergence(std::span(full->step_logits).subspan(t * vocab, vocab),
                                    std::span(result.step_logits).subspan(t * vocab, vocab));
    kl += d.kl;
    same += d.same;
  }
  OrderedJson scores = {{"line", row.line}};
  if (!row.task.empty()) scores["task"] = row.task;
  scores["prompt_tokens"] = row.prompt.size();
  scores["continuation_tokens"] = row.continuation.size();
  scores["nll"] = nll / tokens;
  scores["greedy_equal"] = greedy;
  if (result.stats.coverage) scores["coverage"] = *result.stats.coverage;
  if (full) scores["kl_to_full"] = kl / tokens, scores["same_best_as_full"] = same / tokens;
  scores["prefill_ms"] = result.stats.prefill_ms;
  return scores;
}

}  // namespace fastkv::tools
