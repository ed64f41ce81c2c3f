// The sampler against hand-computed cases, a naive sampler that sorts everything, and the distributions it claims.
#include "decode/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fastkv/error.hpp"

namespace fastkv {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Plain softmax sampling: every filter off.
SamplingOptions plain(std::int64_t seed = 1) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  options.seed = seed;
  return options;
}

SamplingOptions greedy() {
  SamplingOptions options;
  options.temperature = 0;
  return options;
}

std::int32_t once(const SamplingOptions& options, std::vector<float> logits,
                  const std::vector<std::int32_t>& previous = {}) {
  return Sampler(options, int(logits.size())).sample(logits, previous);
}

/// The logits as the penalties leave them.
std::vector<float> penalized(SamplingOptions options, std::vector<float> logits,
                             const std::vector<std::int32_t>& previous) {
  options.temperature = 0;
  Sampler(options, int(logits.size())).sample(logits, previous);
  return logits;
}

/// Tokens drawn in `draws` tries, with how often.
std::map<std::int32_t, int> tally(const SamplingOptions& options, const std::vector<float>& logits, int draws) {
  Sampler sampler(options, int(logits.size()));
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> copy = logits;
    ++counts[sampler.sample(copy, {})];
  }
  return counts;
}

std::set<std::int32_t> drawn(const SamplingOptions& options, const std::vector<float>& logits) {
  std::set<std::int32_t> ids;
  for (const auto& [id, count] : tally(options, logits, 3000)) ids.insert(id);
  return ids;
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(float(std::log(p)));
  return logits;
}

/// χ² of `counts` against `probabilities`, tokens of probability 0 must not occur.
double chi_square(const std::map<std::int32_t, int>& counts, const std::vector<double>& probabilities, int draws) {
  double sum = 0;
  for (std::size_t id = 0; id < probabilities.size(); ++id) {
    const auto found = counts.find(std::int32_t(id));
    const double seen = found == counts.end() ? 0 : found->second;
    const double expected = probabilities[id] * draws;
    if (expected == 0) {
      EXPECT_EQ(seen, 0) << "token " << id;
    } else {
      sum += (seen - expected) * (seen - expected) / expected;
    }
  }
  return sum;
}

TEST(Sampler, GreedyTakesTheLargestAndTheLowerIdOfEquals) {
  EXPECT_EQ(once(greedy(), {0, 3, 1, 2}), 1);
  EXPECT_EQ(once(greedy(), {-5, -3, -3, -4}), 1);
  EXPECT_EQ(once(greedy(), {-inf, -inf, -1e30f}), 2);
  EXPECT_EQ(once(greedy(), {7}), 0);
}

TEST(Sampler, BiasAndSuppressionComeFirst) {
  SamplingOptions options = greedy();
  options.logit_bias = {{0, 2.5f}, {2, -inf}, {0, 1.0f}};
  EXPECT_EQ(once(options, {0, 3, 9, 2}), 0);  // 3.5, 3, −∞, 2
  Sampler sampler(options, 4);
  const std::vector<std::int32_t> ids{0, 1};
  sampler.suppress(ids);
  std::vector<float> logits{0, 3, 9, 2};
  EXPECT_EQ(sampler.sample(logits, {}), 3);
}

TEST(Sampler, PenaltiesByHand) {
  const std::vector<float> logits{4, -4, 2, 0, 1};
  SamplingOptions options;
  options.repeat_penalty = 2;
  EXPECT_EQ(penalized(options, logits, {0, 1, 3, 0}), (std::vector<float>{2, -8, 2, 0, 1}));
  options.frequency_penalty = 0.5f;
  EXPECT_EQ(penalized(options, logits, {0, 1, 3, 0}), (std::vector<float>{1, -8.5f, 2, -0.5f, 1}));
  options.presence_penalty = 0.25f;
  EXPECT_EQ(penalized(options, logits, {0, 1, 3, 0}), (std::vector<float>{0.75f, -8.75f, 2, -0.75f, 1}));
}

TEST(Sampler, PenaltyWindow) {
  const std::vector<float> logits{1, 1, 1};
  const std::vector<std::int32_t> previous{0, 1, 1, 2};
  SamplingOptions options;
  options.frequency_penalty = 1;
  const std::map<int, std::vector<float>> expected{{0, {1, 1, 1}},  {1, {1, 1, 0}},   {2, {1, 0, 0}},  {3, {1, -1, 0}},
                                                   {4, {0, -1, 0}}, {64, {0, -1, 0}}, {-1, {0, -1, 0}}};
  for (const auto& [last_n, want] : expected) {
    options.repeat_last_n = last_n;
    EXPECT_EQ(penalized(options, logits, previous), want) << last_n;
  }
}

TEST(Sampler, PenaltiesDoNotPileUpOverCalls) {
  SamplingOptions options = greedy();
  options.frequency_penalty = 1;
  Sampler sampler(options, 3);
  const std::vector<std::int32_t> previous{1, 1};
  for (int i = 0; i < 3; ++i) {
    std::vector<float> logits{0, 1, -5};
    EXPECT_EQ(sampler.sample(logits, previous), 0);
    EXPECT_EQ(logits, (std::vector<float>{0, -1, -5}));
  }
}

TEST(Sampler, TopK) {
  SamplingOptions options = plain();
  options.top_k = 3;
  EXPECT_EQ(drawn(options, {0, 1, 1, 0.5f, 0.5f, 0.5f}), (std::set<std::int32_t>{1, 2, 3}));  // lower id of equals
  options.top_k = 6;
  EXPECT_EQ(drawn(options, {0, 1, 1, 0.5f, 0.5f, 0.5f}).size(), 6u);
  options.top_k = -1;
  EXPECT_EQ(drawn(options, {0, 1, 1, 0.5f, 0.5f, 0.5f}).size(), 6u);
}

TEST(Sampler, TopPKeepsTheTokenThatReachesIt) {
  const std::vector<float> logits = logs({0.1, 0.4, 0.2, 0.3});
  const std::map<float, std::set<std::int32_t>> expected{{0.0f, {1}},           {0.39f, {1}},        {0.41f, {1, 3}},
                                                         {0.69f, {1, 3}},       {0.71f, {1, 2, 3}},  {0.89f, {1, 2, 3}},
                                                         {0.91f, {0, 1, 2, 3}}, {1.0f, {0, 1, 2, 3}}};
  for (const auto& [top_p, want] : expected) {
    SamplingOptions options = plain();
    options.top_p = top_p;
    EXPECT_EQ(drawn(options, logits), want) << top_p;
  }
}

TEST(Sampler, TopPCountsWhatTopKLeft) {  // 0.4 and 0.3 of 0.7 are 0.571 and 0.429
  SamplingOptions options = plain();
  options.top_k = 2;
  options.top_p = 0.5f;  // of all tokens 0.4 would not be enough
  EXPECT_EQ(drawn(options, logs({0.1, 0.4, 0.2, 0.3})), (std::set<std::int32_t>{1}));
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  const std::vector<float> logits = logs({0.1, 0.4, 0.21, 0.29});
  const std::map<float, std::set<std::int32_t>> expected{
      {0.2f, {0, 1, 2, 3}}, {0.3f, {1, 2, 3}}, {0.6f, {1, 3}}, {0.8f, {1}}, {1.0f, {1}}};
  for (const auto& [min_p, want] : expected) {
    SamplingOptions options = plain();
    options.min_p = min_p;
    EXPECT_EQ(drawn(options, logits), want) << min_p;
  }
}

TEST(Sampler, FiltersComeBeforeTemperature) {
  const std::vector<float> logits = logs({0.6, 0.3, 0.1});
  SamplingOptions options = plain();
  options.temperature = 100;  // nearly uniform, but top-p saw 0.6 and 0.3
  options.top_p = 0.85f;
  EXPECT_EQ(drawn(options, logits), (std::set<std::int32_t>{0, 1}));
  options.top_p = 1;
  options.min_p = 0.4f;
  EXPECT_EQ(drawn(options, logits), (std::set<std::int32_t>{0, 1}));
}

TEST(Sampler, TopKOneEqualsGreedy) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  SamplingOptions top_one;
  top_one.top_k = 1;
  for (const int vocab : {1, 2, 3, 17, 1000}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<float> logits(std::size_t(vocab), 0);
      for (float& logit : logits) logit = float(int(random() % 50)) * 0.5f;  // many ties
      EXPECT_EQ(once(top_one, logits), once(greedy(), logits)) << vocab;
    }
  }
}

TEST(Sampler, SeedsRepeat) {
  const std::vector<float> logits(1000, 0.0f);
  const auto draw = [&](std::int64_t seed) {
    Sampler sampler(plain(seed), int(logits.size()));
    EXPECT_EQ(sampler.seed(), seed);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 20; ++i) {
      std::vector<float> copy = logits;
      ids.push_back(sampler.sample(copy, {}));
    }
    return ids;
  };
  EXPECT_EQ(draw(42), draw(42));
  EXPECT_NE(draw(42), draw(43));
  EXPECT_EQ(draw(0), draw(0));
  const Sampler one(plain(-1), 10), two(plain(-1), 10);
  EXPECT_GE(one.seed(), 0);
  EXPECT_NE(one.seed(), two.seed());  // fails once in 2^32 runs
}

// The generator and the step from bits to a fraction are fixed: 5489 gives mt19937_64's published first output.
TEST(Sampler, DrawsTheSameEverywhere) {
  std::mt19937_64 random(5489);
  ASSERT_EQ(random(), 14514284786278117030u);
  std::vector<float> logits(1000, 0.0f);
  EXPECT_EQ(once(plain(5489), logits), 786);  // ⌊1000 · 14514284786278117030 / 2^64⌋
}

TEST(Sampler, DistributionsAreRight) {
  const std::int64_t seed = std::int64_t(std::random_device{}());
  SCOPED_TRACE("seed " + std::to_string(seed));
  constexpr int draws = 40000;
  const std::vector<double> p{0.05, 0.3, 0.15, 0.02, 0.28, 0.2};
  // χ² with 5 degrees of freedom is above 40 once in 10^7 tries.
  EXPECT_LT(chi_square(tally(plain(seed), logs(p), draws), p, draws), 40);

  SamplingOptions warm = plain(seed);  // p^(1/2), normalised
  warm.temperature = 2;
  std::vector<double> flat;
  double sum = 0;
  for (const double x : p) sum += std::sqrt(x);
  for (const double x : p) flat.push_back(std::sqrt(x) / sum);
  EXPECT_LT(chi_square(tally(warm, logs(p), draws), flat, draws), 40);

  SamplingOptions cut = plain(seed);  // 0.3, 0.28, 0.2 of 0.78
  cut.top_k = 3;
  EXPECT_LT(chi_square(tally(cut, logs(p), draws), {0, 0.3 / 0.78, 0, 0, 0.28 / 0.78, 0.2 / 0.78}, draws), 40);
  cut.top_k = 0;
  cut.top_p = 0.75f;
  EXPECT_LT(chi_square(tally(cut, logs(p), draws), {0, 0.3 / 0.78, 0, 0, 0.28 / 0.78, 0.2 / 0.78}, draws), 40);
}

/// The same definitions with a full stable sort and no shortcut: ids that may be drawn.
std::set<std::int32_t> naive_support(const SamplingOptions& o, const std::vector<float>& logits) {
  std::vector<std::pair<float, int>> order;
  for (std::size_t i = 0; i < logits.size(); ++i) order.emplace_back(-logits[i], int(i));
  std::sort(order.begin(), order.end());
  if (o.top_k > 0 && std::size_t(o.top_k) < order.size()) order.resize(std::size_t(o.top_k));
  double total = 0, sum = 0;
  for (const auto& [minus, id] : order) total += std::exp(-double(minus));
  std::size_t kept = 0;
  while (kept < order.size() && (kept == 0 || o.top_p >= 1 || sum < o.top_p * total))
    sum += std::exp(-double(order[kept++].first));
  order.resize(kept);
  std::set<std::int32_t> ids;
  for (const auto& [minus, id] : order) {
    if (std::exp(-double(minus)) >= double(o.min_p) * std::exp(-double(order[0].first))) ids.insert(id);
  }
  return ids;
}

// A flat temperature draws every token that the filters leave, so that the set can be seen.
TEST(Sampler, AgreesWithFullSorting) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const int vocab : {1, 2, 15, 16, 17, 120}) {
    for (int round = 0; round < 10; ++round) {
      std::vector<float> logits;
      for (int i = 0; i < vocab; ++i) logits.push_back(float(int(random() % 40)) * 0.173f);
      SamplingOptions options = plain(std::int64_t(random()));
      options.temperature = 1e6f;
      options.top_k = int(random() % unsigned(vocab + 2));
      options.top_p = random() % 3 == 0 ? 1.0f : float(random() % 1000) * 1e-3f + 0.00037f;
      options.min_p = random() % 2 == 0 ? 0.0f : float(random() % 1000) * 1e-3f;
      std::set<std::int32_t> ids;
      for (const auto& [id, count] : tally(options, logits, 30 * vocab)) ids.insert(id);  // misses one: e^-30
      EXPECT_EQ(ids, naive_support(options, logits))
          << vocab << " k " << options.top_k << " p " << options.top_p << " min " << options.min_p;
    }
  }
}

// Beyond the 256 candidates that top-p puts in order at first.
TEST(Sampler, TopPReachesFarIntoALargeVocabulary) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const float top_p : {0.3f, 0.6f, 0.95f}) {
    std::vector<float> logits(2000);
    for (float& logit : logits) logit = float(random() % 1000003) * 1e-6f;
    SamplingOptions options = plain(std::int64_t(random()));
    options.temperature = 1e6f;
    options.top_p = top_p;
    const std::set<std::int32_t> allowed = naive_support(options, logits);
    ASSERT_GT(allowed.size(), 257u);
    const std::map<std::int32_t, int> counts = tally(options, logits, 500);
    for (const auto& [id, count] : counts) EXPECT_EQ(allowed.count(id), 1u) << id << ' ' << top_p;
    // 500 draws of at most 2000 about equally likely tokens see 22 % of them or more.
    EXPECT_GT(double(counts.size()), 0.15 * double(allowed.size())) << top_p;
  }
}

TEST(Sampler, ExtremeValues) {
  EXPECT_EQ(once(plain(), {-3e38f, 3e38f, -inf}), 1);
  SamplingOptions cold = plain();
  cold.temperature = 1e-45f;
  EXPECT_EQ(once(cold, {1, 1.0001f, 0}), 1);
  SamplingOptions options;  // the defaults
  EXPECT_EQ(once(options, {-inf, -inf, -80, -inf}), 2);
}

TEST(Sampler, BrokenLogitsAreOneLineErrors) {
  const std::vector<std::vector<float>> broken{{0, nan, 1}, {nan, nan, nan}, {0, inf, 0}, {-inf, -inf, -inf}};
  for (const SamplingOptions& options : {greedy(), SamplingOptions{}}) {
    for (std::vector<float> logits : broken) {
      try {
        Sampler(options, 3).sample(logits, {});
        FAIL() << "expected an error";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::internal);
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      }
    }
  }
  std::vector<float> short_logits(2, 0.0f);
  EXPECT_THROW(Sampler(greedy(), 3).sample(short_logits, {}), Error);
}

TEST(Sampler, OptionsOutOfRangeNameTheFlag) {
  using Change = std::function<void(SamplingOptions&)>;
  const std::vector<std::pair<Change, std::string>> cases{
      {[](auto& o) { o.temperature = -0.5f; }, "--temp -0.5: expected 0 (greedy) or more"},
      {[](auto& o) { o.temperature = nan; }, "--temp nan: "},
      {[](auto& o) { o.temperature = inf; }, "--temp inf: "},
      {[](auto& o) { o.top_p = 1.5f; }, "--top-p 1.5: expected 0..1"},
      {[](auto& o) { o.top_p = -0.1f; }, "--top-p -0.1: "},
      {[](auto& o) { o.min_p = 2; }, "--min-p 2: expected 0..1"},
      {[](auto& o) { o.repeat_penalty = 0; }, "--repeat-penalty 0: expected more than 0"},
      {[](auto& o) { o.repeat_last_n = -2; }, "--repeat-last-n -2: "},
      {[](auto& o) { o.presence_penalty = inf; }, "--presence-penalty inf: "},
      {[](auto& o) { o.frequency_penalty = nan; }, "--frequency-penalty nan: "},
      {[](auto& o) { o.seed = -2; }, "--seed -2: expected -1 (random) or more"},
      {[](auto& o) {
         o.logit_bias = {{10, 1.0f}};
       },
       "--logit-bias 10: expected a token id, 0 to 9"},
      {[](auto& o) {
         o.logit_bias = {{-1, 1.0f}};
       },
       "--logit-bias -1: "},
      {[](auto& o) {
         o.logit_bias = {{3, inf}};
       },
       "--logit-bias 3: expected a finite bias or -inf, found inf"},
  };
  for (const auto& [change, message] : cases) {
    SamplingOptions options;
    change(options);
    try {
      Sampler sampler(options, 10);
      ADD_FAILURE() << "expected: " << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_option);
      EXPECT_EQ(std::string(error.what()).rfind(message, 0), 0u) << error.what();
    }
  }
  EXPECT_NO_THROW(Sampler(SamplingOptions{}, 10));
}

// Llama-3's vocabulary; a full sort takes about 10 ms a token. The bound leaves room for sanitizers and busy machines.
TEST(Sampler, LargeVocabularyIsQuick) {
  std::mt19937 random(7);
  std::vector<float> logits(128256);
  for (float& logit : logits) logit = float(random() % 1000003) * 2e-5f;
  Sampler sampler(SamplingOptions{}, int(logits.size()));
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 50; ++i) {
    std::vector<float> copy = logits;
    sampler.sample(copy, {});
  }
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / 50;
  RecordProperty("ms_per_token", std::to_string(ms));
  EXPECT_LT(ms, 20);
}

}  // namespace
}  // namespace fastkv
