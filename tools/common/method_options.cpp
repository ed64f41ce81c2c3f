// The method's flags: spec/cli.md "The method", with FastKV's authors' spellings.
#include <algorithm>
#include <array>
#include <limits>

#include "common/options.hpp"

namespace fastkv::tools {

namespace {

constexpr Limits<double> kRate{std::numeric_limits<double>::denorm_min(), 1.0, "must be in (0, 1]"};
constexpr Limits<std::int64_t> kCount{1, std::int64_t{1} << 40, "must be 1 or more"};
constexpr Limits<std::int64_t> kCountOrNone{0, std::int64_t{1} << 40, "must be 0 or more"};
constexpr Limits<int> kSmallCount{1, 1 << 30, "must be 1 or more"};
constexpr Limits<int> kSmallCountOrNone{0, 1 << 30, "must be 0 or more"};

// The authors' defaults in constant mode (spec/methods.md 1.1).
constexpr std::int64_t kConstantBudget = 512, kConstantTspTokens = 2048;

constexpr MethodName kDefault = MethodName::fastkv;

}  // namespace

std::string method_words() {
  std::string words;
  for (MethodName method : all_methods()) words += (words.empty() ? "" : "|") + std::string(name(method));
  return words;
}

MethodName parse_method(const std::string& text) {
  std::vector<std::string> names;
  for (MethodName method : all_methods()) {
    if (name(method) == text) return method;
    names.push_back(name(method));
  }
  if (text == "fullkv") return MethodName::full;
  throw UsageError(expected_words(names));
}

bool MethodList::drop_headkv(bool has_table) {
  return all && !has_table && std::erase(methods, MethodName::headkv) > 0;
}

MethodList parse_methods(const std::string& text) {
  if (text == "all") return {all_methods(), true};
  std::vector<MethodName> list;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const MethodName method = parse_method(text.substr(begin, end - begin));
    if (std::find(list.begin(), list.end(), method) != list.end()) throw UsageError("a method is named twice");
    list.push_back(method);
    begin = end + 1;
  }
  return {list};
}

void MethodFlags::declare(CommandLine& command) {
  command.add("--method", method_words(), "full keeps the whole cache; fastkv is the default",
              [this](const std::string& text) { options_.method = parse_method(text); });
  declare_parameters(command);
}

void MethodFlags::declare_parameters(CommandLine& command) {
  command.choice<std::optional<Preset>, Preset>(
      "--preset", preset_, {{"paper", Preset::paper}, {"accurate", Preset::accurate}},
      "a named set of values, also for short prompts, which single flags "
      "override: the paper's, or those that kept most "
      "of hidden facts (--kernel 15 --tsp-window 32 --tsp-shift 4 --group-reduce max)");
  command.option("--tsp-layer,~--tsp-idx", "N", options_.tsp_layer,
                 "last layer that sees all tokens, 0-based (default: half the layers - 1)", kSmallCountOrNone);
  command.option("--tsp-rate", "R", options_.tsp_rate, "share of the prompt that later layers see (default 0.2)",
                 kRate);
  command.option("--tsp-tokens,~--tsp-len", "N", options_.tsp_tokens, "the same as a number of tokens", kCount);
  command.option("--retention,~--retain-rate", "R", options_.retention,
                 "share of the prompt kept in the cache per head (default 0.1)", kRate);
  command.option("--kv-budget,~--max-capacity-prompts", "N", options_.kv_budget, "the same as a number of tokens",
                 kCount);
  command.choice<std::optional<Eviction>, Eviction>(
      "~--eviction-mode", eviction_, {{"constant", Eviction::constant}, {"proportional", Eviction::proportional}}, "");
  command.option("--window,~--window-size", "N", options_.window,
                 "last queries that score the prompt; always kept (default 8)", kSmallCount);
  command.option("--tsp-window", "N", options_.tsp_window,
                 "queries that score propagation; always propagated (default: as --window)", kSmallCount);
  command.option("--tsp-shift", "N", options_.tsp_shift,
                 "propagation: tokens by which the pooling leans to those after a scored one (default 0)",
                 kSmallCountOrNone);
  command.add("--kernel,~--kernel-size", "N", "width of the pooling over scores, odd (default 7)",
              [this](const std::string& text) {
                const std::int64_t kernel = parse_integer(text);
                if (kernel < 1 || kernel > 1 << 20) throw UsageError("must be 1 or more");
                if (kernel % 2 == 0) throw UsageError("must be odd");
                options_.kernel = static_cast<int>(kernel);
              });
  command.choice<std::optional<Pooling>, Pooling>(
      "--pooling", options_.pooling,
      {{"max", Pooling::max}, {"avg", Pooling::avg}, {"~maxpool", Pooling::max}, {"~avgpool", Pooling::avg}},
      "pooling over scores (default max)");
  command.choice<std::optional<GroupReduce>, GroupReduce>("--group-reduce", options_.group_reduce,
                                                          {{"sum", GroupReduce::sum}, {"max", GroupReduce::max}},
                                                          "query heads of a group into one score (default sum)");
  command.option("--sinks", "N", options_.sinks,
                 "first tokens, always kept and propagated, inside the budget (default 0)", kSmallCountOrNone);
  command.choice<std::optional<Granularity>, Granularity>(
      "--granularity", options_.granularity,
      {{"query_head", Granularity::query_head}, {"kv_head", Granularity::kv_head}},
      "rows are chosen and stored per query head, or per key/value head (default query_head)");
  command.choice<std::optional<H2oMask>, H2oMask>(
      "--h2o-mask", options_.h2o_mask, {{"causal", H2oMask::causal}, {"reference", H2oMask::reference}},
      "h2o: attention as published, or as in the authors' code (default causal)");
  command.option("--filter-layer,~--filter-idx", "N", options_.filter_layer,
                 "gemfilter: layer that chooses the tokens (default: half the layers - 1)", kSmallCountOrNone);
  command.option("--pyramid", "35|50|60", options_.pyramid,
                 "pyramidinfer: the authors' settings of that retention (default 60)", kSmallCount);
  command.option("--recent", "R", options_.recent, "pyramidinfer: share of the prompt that scores (default 0.2)",
                 kRate);
  command.option("--delta", "D", options_.delta, "pyramidinfer: what the share of tokens falls to (default 0.7)",
                 kRate);
  command.option("--gamma", "G", options_.gamma, "pyramidinfer: weight of the newest scoring row (default 1.2)",
                 Limits<double>{std::numeric_limits<double>::denorm_min(), 1e6, "must be above 0, at most 1e6"});
  command.option("--head-budgets", "FILE", options_.head_budgets,
                 "headkv: importance of each head, JSON {\"layer-head\": [values]}");
  command.option("--min-prompt", "N", options_.min_prompt,
                 "shorter prompts run full, unless one of the flags above is given (default 1024)", kSmallCountOrNone);
}

MethodOptions MethodFlags::resolve(const CommandLine& command, const std::vector<MethodName>& compared,
                                   const char* list_flag) const {
  MethodOptions options = options_;
  const std::vector<MethodName> methods = compared.empty() ? std::vector{options.method.value_or(kDefault)} : compared;
  std::string chosen = std::string(compared.empty() ? "--method" : list_flag) + " ";
  for (MethodName method : methods) chosen += (method == methods.front() ? "" : ",") + std::string(name(method));
  for (const std::string& flag : given_flags(options_)) {
    if (std::none_of(methods.begin(), methods.end(), [&](MethodName method) { return reads(method, flag); })) {
      throw UsageError(flag + " has no effect with " + chosen);
    }
  }
  if (options_.group_reduce && std::none_of(methods.begin(), methods.end(), [&](MethodName method) {
        return fastkv::options_for(method, options_).group_reduce.has_value();
      })) {
    throw UsageError("--group-reduce has no effect without --granularity kv_head");
  }
  const auto exclude = [&](const char* first, const char* second) {
    if (command.given(first) && command.given(second)) {
      throw UsageError(std::string(first) + " and " + second + " exclude each other");
    }
  };
  exclude("--tsp-rate", "--tsp-tokens");
  exclude("--retention", "--kv-budget");
  if (eviction_) {
    const bool constant = *eviction_ == Eviction::constant;
    const std::string mode = std::string("--eviction-mode ") + (constant ? "constant" : "proportional");
    const std::array<const char*, 2> other = constant ? std::array<const char*, 2>{"--retention", "--tsp-rate"}
                                                      : std::array<const char*, 2>{"--kv-budget", "--tsp-tokens"};
    for (const char* name : other) {
      if (command.given(name)) throw UsageError(mode + " and " + name + " exclude each other");
    }
    if (constant) {
      options.kv_budget = options.kv_budget.value_or(kConstantBudget);
      options.tsp_tokens = options.tsp_tokens.value_or(kConstantTspTokens);
    } else {
      options.retention = options.retention.value_or(0.1);
    }
  }
  if (methods == std::vector{MethodName::full}) {  // the library sees the values they stand for, not these names
    for (const char* name : {"--preset", "--eviction-mode"}) {
      if (command.given(name)) throw UsageError(std::string(name) + " has no effect with " + chosen);
    }
  }
  // A question's window looks at where its passage begins, and the answer is read token after token: in propagation a
  // chosen token takes those after it along, in the cache its neighbours on both sides. Mean excess negative
  // log-likelihood over full on the tasks of tools/make-recall (SmolLM2): paper 1.15, this 0.00; without the shift
  // 0.76, with sums in place of maxima 0.13.
  if (preset_ == Preset::accurate) {
    options.kernel = options.kernel.value_or(15);
    options.tsp_window = options.tsp_window.value_or(32);
    options.tsp_shift = options.tsp_shift.value_or(std::min(4, *options.kernel / 2));
    options.group_reduce = options.group_reduce.value_or(GroupReduce::max);
  }
  if (preset_) {  // the values of the paper are the defaults; naming them makes them hold for short prompts too
    if (!options.kv_budget) options.retention = options.retention.value_or(0.1);
    if (!options.tsp_tokens) options.tsp_rate = options.tsp_rate.value_or(0.2);
    options.window = options.window.value_or(8);
    options.kernel = options.kernel.value_or(7);
    options.pooling = options.pooling.value_or(Pooling::max);
  }
  return options;
}

}  // namespace fastkv::tools
