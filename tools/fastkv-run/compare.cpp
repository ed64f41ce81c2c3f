// The table of --compare.
#include "fastkv-run/compare.hpp"

#include <algorithm>

#include "common/format.hpp"
#include "common/table.hpp"

namespace fastkv::tools {

namespace {

/// "none", or the number of the first generated token (from 1) that is not full's.
std::string first_difference(const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& full) {
  const auto [a, b] = std::mismatch(tokens.begin(), tokens.end(), full.begin(), full.end());
  if (a == tokens.end() && b == full.end()) return "none";
  return format("token %td", a - tokens.begin() + 1);
}

}  // namespace

std::string compare_table(const EngineInfo& info, const std::vector<ComparedRun>& runs) {
  const auto full =
      std::find_if(runs.begin(), runs.end(), [](const ComparedRun& r) { return r.method == MethodName::full; });
  Table table({"method", "TTFT", "prompt tokens/s", "generated tokens/s", "tokens computed", "KV cache", "coverage",
               "differs from full"});
  for (const ComparedRun& compared : runs) {
    const RunStats& stats = compared.run.result.stats;
    const double all = static_cast<double>(stats.n_prompt) * info.n_layer;
    // a prompt below --min-prompt runs full whatever was asked for
    const bool asked = compared.run.result.plan.method.method == compared.method;
    table.row({std::string(name(compared.method)) + (asked ? "" : " (ran full)"),
               format("%.2f s", compared.run.timings.ttft_ms / 1000),
               format("%.1f", per_second(static_cast<double>(stats.n_prompt), stats.prefill_ms)),
               format("%.1f", per_second(static_cast<double>(stats.n_decoded), stats.decode_ms)),
               format("%.1f %%", all > 0 ? 100 * static_cast<double>(stats.token_layers) / all : 0),
               format_bytes(stats.cache_bytes), stats.coverage ? format("%.2f", *stats.coverage) : "-",
               full == runs.end() || compared.method == MethodName::full
                   ? "-"
                   : first_difference(compared.run.result.tokens, full->run.result.tokens)});
  }
  return table.text();
}

}  // namespace fastkv::tools
