// The methods by name, and which of them reads which option: one table for checks, reports and tools.
#include <array>

#include "fastkv/options.hpp"

namespace fastkv {
namespace {

using enum MethodName;

constexpr std::uint32_t bit(MethodName method) { return 1u << int(method); }
template <class... Methods>
constexpr std::uint32_t of(Methods... methods) {
  return (bit(methods) | ...);
}

constexpr std::uint32_t kBudget = of(fastkv, snapkv, streamingllm, h2o, gemfilter, headkv, pyramidkv, adakv, tova);
constexpr std::uint32_t kWindow = of(fastkv, snapkv, h2o, headkv, pyramidkv, adakv);
constexpr std::uint32_t kPooled = of(fastkv, snapkv, headkv, pyramidkv, adakv);
constexpr std::uint32_t kPerHead = of(snapkv, h2o, headkv);

// visit(flag, methods that read it, its field of `options`) for each option
template <class Options, class Visit>
void each_option(Options& o, const Visit& visit) {
  visit("--tsp-layer", of(fastkv), o.tsp_layer);
  visit("--tsp-rate", of(fastkv), o.tsp_rate);
  visit("--tsp-tokens", of(fastkv), o.tsp_tokens);
  visit("--retention", kBudget, o.retention);
  visit("--kv-budget", kBudget, o.kv_budget);
  visit("--window", kWindow, o.window);
  visit("--tsp-window", of(fastkv), o.tsp_window);
  visit("--tsp-shift", of(fastkv), o.tsp_shift);
  visit("--kernel", kPooled, o.kernel);
  visit("--pooling", kPooled, o.pooling);
  visit("--group-reduce", kPerHead | of(fastkv), o.group_reduce);
  visit("--sinks", kWindow | of(streamingllm, tova), o.sinks);
  visit("--granularity", kPerHead, o.granularity);
  visit("--h2o-mask", of(h2o), o.h2o_mask);
  visit("--filter-layer", of(gemfilter), o.filter_layer);
  visit("--pyramid", of(pyramidinfer), o.pyramid);
  visit("--recent", of(pyramidinfer), o.recent);
  visit("--delta", of(pyramidinfer), o.delta);
  visit("--gamma", of(pyramidinfer), o.gamma);
  visit("--head-budgets", of(headkv), o.head_budgets);
}

}  // namespace

const std::vector<MethodName>& all_methods() {
  static const std::vector<MethodName> all = {full,         fastkv, snapkv,    streamingllm, h2o, gemfilter,
                                              pyramidinfer, headkv, pyramidkv, adakv,        tova};
  return all;
}

const char* name(MethodName method) {
  constexpr std::array<const char*, 11> names = {"full",      "fastkv",    "snapkv",       "streamingllm",
                                                 "h2o",       "gemfilter", "pyramidinfer", "headkv",
                                                 "pyramidkv", "adakv",     "tova"};
  return names[std::size_t(method)];
}
const char* name(Pooling pooling) { return pooling == Pooling::max ? "max" : "avg"; }
const char* name(GroupReduce reduce) { return reduce == GroupReduce::sum ? "sum" : "max"; }
const char* name(Granularity granularity) { return granularity == Granularity::query_head ? "query_head" : "kv_head"; }
const char* name(H2oMask mask) { return mask == H2oMask::causal ? "causal" : "reference"; }

bool reads(MethodName method, std::string_view flag) {
  bool found = false;
  const MethodOptions options;
  each_option(options, [&](std::string_view known, std::uint32_t methods, const auto&) {
    found |= known == flag && (methods & bit(method));
  });
  return found;
}

std::vector<std::string> given_flags(const MethodOptions& options) {
  std::vector<std::string> flags;
  each_option(options, [&](const char* flag, std::uint32_t, const auto& field) {
    if (field) flags.push_back(flag);
  });
  return flags;
}

MethodOptions options_for(MethodName method, MethodOptions options) {
  options.method = method;
  each_option(options, [&](const char*, std::uint32_t methods, auto& field) {
    if (!(methods & bit(method))) field.reset();
  });
  // per query head there is no group to join
  if (kPerHead & bit(method) && options.granularity != Granularity::kv_head) options.group_reduce.reset();
  return options;
}

}  // namespace fastkv
