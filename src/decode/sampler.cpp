// The steps of sampling in llama.cpp's order and with its definitions, each on the candidates that the last one left.
#include "decode/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/arg_max.hpp"
#include "core/check.hpp"

namespace fastkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class Value>
void require(bool ok, const char* flag, Value value, const char* expected) {
  check(ok, ErrorCode::invalid_option, flag, ' ', value, ": expected ", expected);
}

std::int64_t choose_seed(std::int64_t asked) {
  require(asked >= -1, "--seed", asked, "-1 (random) or more");
  return asked >= 0 ? asked : std::int64_t(std::random_device{}());
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options, int vocab)
    : options_(options),
      seed_(choose_seed(options.seed)),
      random_(std::uint64_t(seed_)),
      counts_(std::size_t(std::max(vocab, 0)), 0) {
  const SamplingOptions& o = options_;
  check(vocab >= 1, ErrorCode::internal, "sampler: expected at least 1 token in the vocabulary, found ", vocab);
  // Written so that NaN fails every one of them.
  require(o.temperature >= 0 && o.temperature < kInfinity, "--temp", o.temperature, "0 (greedy) or more");
  require(o.top_p >= 0 && o.top_p <= 1, "--top-p", o.top_p, "0..1");
  require(o.min_p >= 0 && o.min_p <= 1, "--min-p", o.min_p, "0..1");
  require(o.repeat_penalty > 0 && o.repeat_penalty < kInfinity, "--repeat-penalty", o.repeat_penalty, "more than 0");
  require(o.repeat_last_n >= -1, "--repeat-last-n", o.repeat_last_n, "-1 (whole context) or more");
  require(std::isfinite(o.presence_penalty), "--presence-penalty", o.presence_penalty, "a finite number");
  require(std::isfinite(o.frequency_penalty), "--frequency-penalty", o.frequency_penalty, "a finite number");
  for (const auto& [id, bias] : o.logit_bias) {
    check(id >= 0 && id < vocab, ErrorCode::invalid_option, "--logit-bias ", id, ": expected a token id, 0 to ",
          vocab - 1);
    check(bias < kInfinity, ErrorCode::invalid_option, "--logit-bias ", id, ": expected a finite bias or -inf, found ",
          bias);
  }
}

void Sampler::suppress(std::span<const std::int32_t> ids) {
  for (const std::int32_t id : ids) {
    check(id >= 0 && std::size_t(id) < counts_.size(), ErrorCode::internal, "sampler: cannot suppress token ", id,
          " of a vocabulary of ", counts_.size());
  }
  suppressed_.insert(suppressed_.end(), ids.begin(), ids.end());
}

bool Sampler::takes_best() const {
  const SamplingOptions& o = options_;
  return o.temperature == 0 && o.logit_bias.empty() && o.repeat_penalty == 1 && o.presence_penalty == 0 &&
         o.frequency_penalty == 0;
}

std::int32_t Sampler::sample(std::span<float> logits, std::span<const std::int32_t> previous) {
  check(logits.size() == counts_.size(), ErrorCode::internal, "sampler: expected ", counts_.size(), " logits, found ",
        logits.size());
  check_logits(logits);
  add_bias(logits);
  penalize(logits, previous);
  const std::int32_t best = arg_max(logits);
  const float largest = logits[std::size_t(best)];
  if (options_.temperature == 0) return best;

  const bool top_k = options_.top_k > 0 && std::size_t(options_.top_k) < logits.size();
  top_k ? collect_top_k(logits) : collect_all(logits);
  if (options_.top_p < 1) keep_top_p();
  if (options_.min_p > 0) keep_min_p(largest);
  return draw(largest);
}

void Sampler::add_bias(std::span<float> logits) const {
  for (const auto& [id, bias] : options_.logit_bias) logits[std::size_t(id)] += bias;
  for (const std::int32_t id : suppressed_) logits[std::size_t(id)] = -kInfinity;
}

/// For a token that occurs c > 0 times in the window: l ← (l > 0 ? l / repeat : l · repeat) − c · frequency − presence.
void Sampler::penalize(std::span<float> logits, std::span<const std::int32_t> previous) {
  const SamplingOptions& o = options_;
  if (o.repeat_penalty == 1 && o.presence_penalty == 0 && o.frequency_penalty == 0) return;
  const std::size_t last_n = o.repeat_last_n < 0 ? previous.size() : std::size_t(o.repeat_last_n);
  const std::span<const std::int32_t> window = previous.last(std::min(last_n, previous.size()));
  for (const std::int32_t id : window) {
    check(id >= 0 && std::size_t(id) < counts_.size(), ErrorCode::internal, "sampler: token ", id,
          " is outside a vocabulary of ", counts_.size());
  }
  for (const std::int32_t id : window) ++counts_[std::size_t(id)];
  for (const std::int32_t id : window) {
    int& count = counts_[std::size_t(id)];
    if (count == 0) continue;  // an earlier occurrence has been through
    float& logit = logits[std::size_t(id)];
    logit = logit > 0 ? logit / o.repeat_penalty : logit * o.repeat_penalty;
    logit -= float(count) * o.frequency_penalty + o.presence_penalty;
    count = 0;
  }
}

/// Larger logit first, then lower id: a total order, so that results do not depend on how a library sorts.
bool Sampler::before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/// Every token that can be drawn at all, in order of id.
void Sampler::collect_all(std::span<const float> logits) {
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInfinity) candidates_.push_back({std::int32_t(i), logits[i]});
  }
}

/// The k first in order. One pass over the logits: of 2k collected, the better k stay and set the bar for the rest.
void Sampler::collect_top_k(std::span<const float> logits) {
  const auto k = std::size_t(options_.top_k);
  candidates_.clear();
  const auto cut = [&] {
    std::nth_element(candidates_.begin(), candidates_.begin() + std::ptrdiff_t(k - 1), candidates_.end(), before);
    candidates_.resize(k);
  };
  float bar = -kInfinity;  // k tokens of lower id reach it, so an equal logit loses
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > bar)) continue;
    candidates_.push_back({std::int32_t(i), logits[i]});
    if (candidates_.size() == 2 * k) {
      cut();
      bar = candidates_.back().logit;
    }
  }
  if (candidates_.size() > k) cut();
  std::sort(candidates_.begin(), candidates_.end(), before);
}

/// The shortest run of most probable candidates whose probabilities reach top_p together; at least one.
void Sampler::keep_top_p() {
  float largest = -kInfinity;
  for (const Candidate& c : candidates_) largest = std::max(largest, c.logit);
  double total = 0;
  for (const Candidate& c : candidates_) total += std::exp(double(c.logit) - double(largest));
  const double enough = double(options_.top_p) * total;
  double sum = 0;
  std::size_t sorted = 0;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (i == sorted) {  // mostly a few candidates are enough: put them in order piece by piece
      sorted = std::min(candidates_.size(), std::max<std::size_t>(256, 4 * sorted));
      const auto begin = candidates_.begin() + std::ptrdiff_t(i), end = candidates_.begin() + std::ptrdiff_t(sorted);
      std::partial_sort(begin, end, candidates_.end(), before);
    }
    sum += std::exp(double(candidates_[i].logit) - double(largest));
    if (sum >= enough) {
      candidates_.resize(i + 1);
      return;
    }
  }
}

/// Candidates at least min_p times as probable as the most probable one.
void Sampler::keep_min_p(float largest) {
  const float least = largest + std::log(options_.min_p);
  std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < least; });
}

/// One candidate, with probability ∝ exp(logit / temperature).
std::int32_t Sampler::draw(float largest) {
  const double inverse = 1 / double(options_.temperature);
  const auto weight = [&](const Candidate& c) { return std::exp((double(c.logit) - double(largest)) * inverse); };
  double total = 0;
  for (const Candidate& c : candidates_) total += weight(c);
  // 53 random bits as a fraction of 1; std::uniform_real_distribution differs between libraries.
  const double target = double(random_() >> 11) * 0x1p-53 * total;
  double sum = 0;
  for (const Candidate& c : candidates_) {
    sum += weight(c);
    if (sum > target) return c.id;
  }
  return candidates_.back().id;  // the product was rounded up to the total
}

}  // namespace fastkv
