// The log-likelihood of a given continuation against the oracle's, and what a continuation means for a run.
#include <gtest/gtest.h>

#include <cmath>

#include "support/cases.hpp"
#include "support/engine_run.hpp"
#include "support/model_file.hpp"
#include "support/spread.hpp"

namespace fastkv::test {
namespace {

const RandomModel& model() {
  static const RandomModel made({"continuation", 4, 96, 128, 6, 2, 64, 301, {DType::f32}, false, false, true}, 4711);
  return made;
}

double log_softmax(const std::vector<double>& logits, std::int32_t token) {
  double best = logits[0], sum = 0;
  for (double logit : logits) best = std::max(best, logit);
  for (double logit : logits) sum += std::exp(logit - best);
  return logits[std::size_t(token)] - best - std::log(sum);
}

TEST(Continuation, LogProbabilitiesAreTheOracles) {
  const ModelFile file(model());
  const Oracle oracle(model().config, model().tensors);
  Engine engine(engine_options(file.path(), Compute::f32));
  const std::vector<std::int32_t> prompt = model().prompt(150), continuation = {5, 300, 0, 17, 17, 44};
  for (MethodName method : {MethodName::full, MethodName::fastkv}) {
    SCOPED_TRACE(name(method));
    MethodOptions choice;
    choice.method = method;
    choice.min_prompt = 0;
    RunOptions options = greedy(choice, -1);
    options.continuation = continuation;
    const RunResult found = engine.run(prompt, options);
    EXPECT_TRUE(found.tokens.empty());
    EXPECT_EQ(found.finish, Finish::length);
    EXPECT_EQ(found.stats.n_decoded, std::int64_t(continuation.size()) - 1) << "the last token need not be fed";
    ASSERT_EQ(found.scores.size(), continuation.size());

    OracleRun run;
    run.method = method == MethodName::full ? full_method() : fastkv_defaults(model().config.n_layer);
    run.n_generate = int(continuation.size());
    run.feed = continuation;
    const OracleResult own = oracle.run(prompt, run);
    const Spread spread = measure_spread(oracle, prompt, run, own, Rounding::f32(), 2);
    const Imposed decisions = decisions_of(found.trace);
    run.imposed = &decisions;
    const OracleResult exact = oracle.run(prompt, run);
    for (std::size_t t = 0; t < continuation.size(); ++t) {
      const std::vector<double>& logits = t == 0 ? exact.logits : exact.decode_logits[t - 1];
      // a logit and the logarithm of a mean of exponentials: each moves by no more than the largest error of a logit
      EXPECT_NEAR(found.scores[t].log_prob, log_softmax(logits, continuation[t]), 2 * kWorst * spread.logits) << t;
      EXPECT_EQ(found.scores[t].best, best_tokens(logits, 1)[0] == continuation[t]) << t;
    }
  }
}

TEST(Continuation, AGreedyAnswerIsTheBestContinuation) {
  const ModelFile file(model());
  Engine engine(engine_options(file.path(), Compute::f32));
  const std::vector<std::int32_t> prompt = model().prompt(100);
  MethodOptions method;
  method.tsp_rate = 0.4;
  RunOptions options = greedy(method, 7);
  const std::vector<std::int32_t> answer = engine.run(prompt, options).tokens;
  options.continuation = answer;
  for (const TokenScore& score : engine.run(prompt, options).scores) {
    EXPECT_TRUE(score.best);
    EXPECT_LE(score.log_prob, 0);
    EXPECT_GE(score.log_prob, -std::log(301.0)) << "the best of 301 tokens has at least the mean probability";
  }
  options.continuation.back() = (answer.back() + 1) % 301;
  EXPECT_FALSE(engine.run(prompt, options).scores.back().best);
}

TEST(Continuation, MustFitTheContextAndTheVocabulary) {
  const ModelFile file(model());
  Engine engine(engine_options(file.path(), Compute::f32));
  RunOptions options = greedy({}, -1, 20);
  options.continuation = {1, 2, 3, 4};
  EXPECT_EQ(engine.run(model().prompt(16), options).scores.size(), 4u);
  const auto message = [&](int n) {
    try {
      engine.run(model().prompt(n), options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message(17), "prompt and continuation are too long (17 and 4 tokens, context 20): raise -c");
  options.continuation = {1, 301};
  EXPECT_EQ(message(9), "continuation token 1: expected an id in 0..300, found 301");
}

}  // namespace
}  // namespace fastkv::test
