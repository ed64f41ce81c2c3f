// Chooses the next token from its logits: bias, penalties, top-k, top-p, min-p, temperature, then one random draw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "fastkv/options.hpp"

namespace fastkv {

/// One sequence of draws. The same options, seed and logits give the same tokens with every standard library.
class Sampler {
 public:
  /// `vocab`: V, the number of tokens. Throws Error invalid_option naming the flag of the first option out of range.
  Sampler(const SamplingOptions& options, int vocab);

  /// Never chooses `ids` from now on (end-of-generation tokens under ignore_eos).
  void suppress(std::span<const std::int32_t> ids);

  /// The next token id. `logits` [V]: changed in place. `previous`: ids so far, prompt included, oldest first;
  /// penalties look at the last repeat_last_n of them. Temperature 0 takes the largest logit after bias and penalties;
  /// ties go to the lower id, here and in top-k. Throws Error internal if a logit is NaN or +∞, or none is finite.
  std::int32_t sample(std::span<float> logits, std::span<const std::int32_t> previous);

  /// Whether sample() takes the largest logit that is not of a suppressed token, whatever came before.
  bool takes_best() const;
  const std::vector<std::int32_t>& suppressed() const { return suppressed_; }

  /// The seed in use: the option's, or the one drawn for −1.
  std::int64_t seed() const { return seed_; }

 private:
  struct Candidate {
    std::int32_t id;
    float logit;
  };
  static bool before(const Candidate& a, const Candidate& b);

  void add_bias(std::span<float> logits) const;
  void penalize(std::span<float> logits, std::span<const std::int32_t> previous);
  void collect_all(std::span<const float> logits);
  void collect_top_k(std::span<const float> logits);
  void keep_top_p();
  void keep_min_p(float largest);
  std::int32_t draw(float largest);

  SamplingOptions options_;
  std::int64_t seed_;
  std::mt19937_64 random_;
  std::vector<std::int32_t> suppressed_;
  std::vector<int> counts_;            // [V] occurrences in the penalty window; all zero between calls
  std::vector<Candidate> candidates_;  // tokens still in play
};

}  // namespace fastkv
