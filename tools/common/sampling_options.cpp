// The samplers' flags under llama.cpp's names and defaults.
#include <limits>

#include "common/options.hpp"

namespace fastkv::tools {

namespace {

constexpr float kAny = std::numeric_limits<float>::max();

/// "ID+BIAS" or "ID-BIAS"; BIAS may be inf.
std::pair<std::int32_t, float> parse_bias(const std::string& text) {
  const std::size_t sign = text.find_first_of("+-");
  if (sign == 0 || sign == std::string::npos) throw UsageError("expected ID+BIAS or ID-BIAS");
  const std::int64_t id = parse_integer(text.substr(0, sign));
  if (id > std::numeric_limits<std::int32_t>::max()) throw UsageError("too large");
  const std::string number = text.substr(sign + 1);
  if (number.empty() || number[0] == '+' || number[0] == '-') throw UsageError("expected ID+BIAS or ID-BIAS");
  const double bias = parse_number(number);
  return {static_cast<std::int32_t>(id), static_cast<float>(text[sign] == '-' ? -bias : bias)};
}

}  // namespace

void SamplingFlags::declare(CommandLine& command) {
  constexpr Limits<float> share{0, 1, "must be in [0, 1]"};
  constexpr Limits<float> penalty{-kAny, kAny, "must be finite"};
  command.option("--temp,~--temperature", "T", temperature_,
                 "temperature; 0: always the most likely token (default 0.8; 0 with --trace and --compare)",
                 Limits<float>{0, kAny, "must be 0 or more"});
  command.option("--top-k", "N", options_.top_k, "keep the N most likely tokens; 0: all (default 40)");
  command.option("--top-p", "P", options_.top_p, "keep the likeliest tokens of total probability P (default 0.95)",
                 share);
  command.option("--min-p", "P", options_.min_p, "drop tokens below P times the likeliest (default 0.05)", share);
  command.option("--repeat-penalty", "X", options_.repeat_penalty, "penalty on repeated tokens; 1: none (default)",
                 Limits<float>{std::numeric_limits<float>::min(), kAny, "must be above 0"});
  command.option("--repeat-last-n", "N", options_.repeat_last_n, "tokens the penalties look at; -1: all (default 64)",
                 Limits<int>{-1, 1 << 30, "must be -1 or more"});
  command.option("--presence-penalty", "X", options_.presence_penalty, "penalty on tokens seen (default 0)", penalty);
  command.option("--frequency-penalty", "X", options_.frequency_penalty, "the same per occurrence (default 0)",
                 penalty);
  command.option("-s,--seed", "N", options_.seed, "random seed; -1: a new one, which is printed (default)",
                 Limits<std::int64_t>{-1, std::numeric_limits<std::int64_t>::max(), "must be -1 or more"});
  command.flag("--ignore-eos", options_.ignore_eos, "go on after an end-of-generation token");
  command.add_repeated("-l,--logit-bias", "ID+BIAS", "add to a token's logit: 15043+1, 15043-inf; may be repeated",
                       [this](const std::string& text) { options_.logit_bias.push_back(parse_bias(text)); });
}

SamplingOptions SamplingFlags::resolve(bool greedy, const Tokenizer& tokenizer) const {
  SamplingOptions options = options_;
  options.temperature = temperature_.value_or(greedy ? 0.0f : options.temperature);
  for (const auto& [id, bias] : options.logit_bias) {
    if (id >= tokenizer.vocab_size()) {
      throw UsageError("--logit-bias " + std::to_string(id) + ": the vocabulary has " +
                       std::to_string(tokenizer.vocab_size()) + " tokens");
    }
  }
  return options;
}

}  // namespace fastkv::tools
