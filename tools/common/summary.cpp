// The report of a run: what is said before it and after it.
#include "common/summary.hpp"

#include "common/format.hpp"
#include "common/options.hpp"

namespace fastkv::tools {

namespace {

/// Of the attention mass; the reference settings hold 0.85 to 0.95 of it on ordinary text.
constexpr double kLowCoverage = 0.7;

std::string cache_types(const RunPlan& plan) {
  const std::string k = name(plan.cache_k), v = name(plan.cache_v);
  return k == v ? k : k + "/" + v;
}

/// "rate 0.200 = 26214 tokens" or "26214 tokens".
std::string amount(bool by_rate, const char* what, double rate, std::int64_t tokens, const char* unit) {
  return (by_rate ? format("%s %.3f = ", what, rate) : std::string()) +
         format("%lld %s", static_cast<long long>(tokens), unit);
}

/// What the method does to this prompt: who goes on, what is kept.
std::string method_text(const EngineInfo& info, const RunPlan& plan, const std::optional<double>& coverage) {
  const MethodParams& method = plan.method;
  if (method.method == MethodName::full) return "full";
  std::vector<std::string> parts;
  if (method.method == MethodName::fastkv) {
    const std::size_t next = static_cast<std::size_t>(method.tsp_layer) + 1;
    const std::int64_t on = next < plan.layers.size() ? plan.layers[next].tokens_in : plan.n_prompt;
    parts.push_back(format("tsp layer %d/%d, ", method.tsp_layer, info.n_layer) +
                    amount(method.tsp_by_rate, "rate", method.tsp_rate, on, "tokens"));
  }
  const std::int64_t kept = plan.layers.empty() ? 0 : plan.layers.front().kept;
  const bool proportional = method.proportional;
  if (method.method == MethodName::gemfilter) {
    parts.push_back(format("filter layer %d/%d, ", method.filter_layer, info.n_layer) +
                    amount(proportional, "retention", method.retention, kept, "tokens"));
  } else if (method.method == MethodName::pyramidinfer) {
    const std::int64_t last = plan.layers.empty() ? 0 : plan.layers.back().tokens_in;
    parts.push_back(format("recent %.2f, delta %.2f, gamma %.2f: %lld to %lld tokens", method.recent, method.delta,
                           method.gamma, static_cast<long long>(plan.n_prompt), static_cast<long long>(last)));
  } else {
    std::string unit = plan.stored_heads > info.n_head_kv ? "per query head" : "per head";
    if (method.method == MethodName::pyramidkv)  // from the first layer to the last
      unit = format("to %lld ", static_cast<long long>(plan.layers.empty() ? 0 : plan.layers.back().kept)) + unit;
    parts.push_back((proportional ? "" : "budget ") +
                    amount(proportional, "retention", method.retention, kept, unit.c_str()));
  }
  if (coverage) parts.push_back(format("coverage %.2f", *coverage));
  std::string text = name(method.method) + std::string(" (");
  for (const std::string& part : parts) text += (&part == &parts.front() ? "" : "; ") + part;
  return text + ")";
}

/// "%10.2f ms / %5d tokens (%8.2f ms per token, %8.2f tokens per second)" after its label, as llama.cpp prints it.
std::string timing_line(const char* label, double ms, std::int64_t count, const char* unit) {
  return format("%16s = %10.2f ms / %5lld %s (%8.2f ms per token, %8.2f tokens per second)", label, ms,
                static_cast<long long>(count), unit, count > 0 ? ms / static_cast<double>(count) : 0,
                per_second(static_cast<double>(count), ms));
}

}  // namespace

double per_second(double count, double ms) { return ms > 0 ? 1000 * count / ms : 0; }

std::vector<std::string> describe_engine(const EngineInfo& info) {
  std::string threads = format("%d", info.threads), reason = info.threads_reason;
  if (info.threads_batch != info.threads) threads += format(", prompt %d", info.threads_batch);
  const std::string count = threads + " threads: ";  // the reason may repeat it
  if (reason.rfind(count, 0) == 0) reason.erase(0, count.size());
  std::vector<std::string> lines = {
      "model: " + info.model_name + ", " + info.model_type + ", " + format_bytes(info.file_bytes) +
          format(", %d layers, %d/%d heads of %d, trained context %d", info.n_layer, info.n_head, info.n_head_kv,
                 info.head_dim, info.n_ctx_train),
      "threads: " + threads + (reason.empty() ? "" : " (" + reason + ")"),
      "compute: " + info.compute + (info.decode_compute == info.compute ? "" : ", decode " + info.decode_compute) +
          ", attention " + info.attention + ", isa " + info.isa + ", gemm " + info.gemm};
  lines.push_back(info.device.empty() ? "numa: " + info.numa : "device: " + info.device);
  return lines;
}

std::vector<std::string> describe_plan(const EngineInfo& info, const RunPlan& plan) {
  const MemoryPlan& memory = plan.memory;
  std::vector<std::string> lines = {
      "plan: " +
          format("%lld prompt tokens, context %lld, method ", static_cast<long long>(plan.n_prompt),
                 static_cast<long long>(plan.context)) +
          method_text(info, plan, std::nullopt),
      "memory: " + format_bytes(memory.weights) + " weights, " + format_bytes(memory.cache) + " cache (" +
          cache_types(plan) + "), " + format_bytes(memory.hidden) + " hidden states, " + format_bytes(memory.layer_kv) +
          " keys and values of one layer, " + format_bytes(memory.scratch) + " scratch",
      "memory: " + format_bytes(memory.peak()) + " at most, " + format_bytes(memory.available) + " available"};
  for (const std::string& note : plan.notes) lines.push_back((note.rfind("warning: ", 0) == 0 ? "" : "note: ") + note);
  return lines;
}

std::vector<std::string> describe_nodes(const RunPlan& plan) {
  std::vector<std::string> lines;
  for (const NodePlan& node : plan.nodes) {
    std::string threads = format("%d thread%s", node.threads, node.threads == 1 ? "" : "s");
    if (node.threads_batch != node.threads) threads += format(" (prompt %d)", node.threads_batch);
    const std::string heads =
        node.head_end > node.head_begin ? format("heads %d-%d", node.head_begin, node.head_end - 1) : "no heads";
    lines.push_back(format("node %d: %s on CPUs %s, %s weights, %s cache (%s), %s working memory", node.node,
                           threads.c_str(), node.cpus.c_str(), format_bytes(node.weights).c_str(),
                           format_bytes(node.cache).c_str(), heads.c_str(), format_bytes(node.work).c_str()));
  }
  return lines;
}

std::vector<std::string> describe_layers(const RunPlan& plan) {
  std::vector<std::string> lines;
  for (const auto* layers : {&plan.filter_layers, &plan.layers}) {
    for (std::size_t l = 0; l < layers->size(); ++l) {
      const LayerPlan& layer = (*layers)[l];
      lines.push_back(format("%slayer %zu: %lld tokens in, %lld on, %lld kept per head",
                             layers == &plan.layers ? "" : "filter, ", l, static_cast<long long>(layer.tokens_in),
                             static_cast<long long>(layer.tokens_out), static_cast<long long>(layer.kept)));
    }
  }
  return lines;
}

std::vector<std::string> summary(const EngineInfo& info, const RunPlan& plan, const RunStats& stats,
                                 const Timings& timings) {
  std::vector<std::string> lines = {timing_line("prompt eval time", stats.prefill_ms, stats.n_prompt, "tokens"),
                                    timing_line("eval time", stats.decode_ms, stats.n_decoded, "runs  "),
                                    "          method = " + method_text(info, plan, stats.coverage)};
  if (stats.coverage) {
    std::string layers = "        coverage = by layer";
    for (const std::optional<double>& layer : stats.layer_coverage) layers += layer ? format(" %.2f", *layer) : " -";
    lines.push_back(layers);
  }
  if (stats.coverage && *stats.coverage < kLowCoverage) {
    lines.push_back(
        format("         warning: coverage below %.1f: much of what the last tokens attend to is not kept; ",
               kLowCoverage) +
        (plan.method.proportional ? "raise --retention" : "raise --kv-budget"));
  }
  if (timings.ttft_ms == 0) return lines;  // stopped before there was a cache or a token
  std::string cache = "        KV cache = " + format_bytes(stats.cache_bytes) + " " + cache_types(plan);
  if (stats.cache_bytes > 0 && stats.cache_bytes < stats.cache_bytes_full) {
    cache += " (full: " + format_bytes(stats.cache_bytes_full) +
             format(", %.1fx smaller)",
                    static_cast<double>(stats.cache_bytes_full) / static_cast<double>(stats.cache_bytes));
  }
  lines.push_back(cache + ", peak RSS " + format_bytes(stats.peak_rss));
  lines.push_back(format("            TTFT = %.1f ms (tokenize %.1f, prefill %.1f, sample %.1f)", timings.ttft_ms,
                         timings.tokenize_ms, stats.prefill_ms, timings.sample_ms));
  return lines;
}

}  // namespace fastkv::tools
