// Context and memory of a run (spec/cli.md: -c, -n, --dry-run).
#include "engine_plan.hpp"

#include <algorithm>
#include <numeric>

#include "core/check.hpp"
#include "prefill/plan.hpp"
#include "runtime/memory.hpp"

namespace fastkv {

std::size_t MemoryPlan::peak() const { return weights + std::max(file, held + scratch); }

std::int64_t tokens_asked(const RunOptions& options) {
  return options.continuation.empty() ? options.n_predict : std::int64_t(options.continuation.size());
}

std::int64_t generation_limit(const RunPlan& plan, const RunOptions& options) {
  const std::int64_t room = plan.context - plan.n_prompt, asked = tokens_asked(options);
  return asked < 0 ? room : std::min(asked, room);
}

// An open-ended answer starts with room for 512 tokens; the cache grows when it gets longer.
std::int64_t reserved_rows(const RunPlan& plan, const RunOptions& options) {
  const std::int64_t limit = generation_limit(plan, options);
  return tokens_asked(options) < 0 ? std::min<std::int64_t>(limit, 512) : limit;
}

RunPlan make_plan(const Backend& backend, const ModelConfig& config, std::int64_t n_prompt, const RunOptions& options,
                  const WeightState& weights) {
  check(n_prompt > 0, ErrorCode::bad_input, "the prompt is empty: expected at least one token");
  check(options.n_predict >= -1, ErrorCode::invalid_option, "-n ", options.n_predict, ": expected -1 or more");
  check(options.context >= 0, ErrorCode::invalid_option, "-c ", options.context, ": expected 0 or more");
  RunPlan plan;
  plan.n_prompt = n_prompt;
  const std::int64_t trained = config.n_ctx_train, asked = tokens_asked(options);
  plan.context = options.context > 0 ? options.context : asked < 0 ? trained : std::min(trained, n_prompt + asked);
  check(n_prompt <= plan.context, ErrorCode::context_exceeded, "prompt is too long (", n_prompt, " tokens, context ",
        plan.context, options.context > 0 ? "): raise -c" : "): the model is trained for no more; -c N goes beyond it");
  check(n_prompt + std::int64_t(options.continuation.size()) <= plan.context, ErrorCode::context_exceeded,
        "prompt and continuation are too long (", n_prompt, " and ", options.continuation.size(), " tokens, context ",
        plan.context, options.context > 0 ? "): raise -c" : "): the model is trained for no more; -c N goes beyond it");
  if (plan.context > trained && !config.rope_scaled)
    plan.notes.push_back(concat("warning: context ", plan.context, " is longer than the trained context ", trained));
  check(!options.all_logits || options.method.method.value_or(MethodName::fastkv) == MethodName::full,
        ErrorCode::invalid_option, "--save-logits needs --method full: other methods do not compute every token");

  check(options.score_rows == 0 || options.method.method.value_or(MethodName::fastkv) == MethodName::full,
        ErrorCode::invalid_option, "scores of layers need the method full: in others layers see different tokens");
  check(options.score_rows >= 0 && options.score_rows < n_prompt, ErrorCode::invalid_option,
        "scores of layers: ", options.score_rows, " scoring rows of ", n_prompt, " tokens leave none to be scored");

  plan.method = resolve(options.method, config, n_prompt, plan.notes);
  plan_layers(plan, config);
  if (options.all_logits) plan.layers.back().tokens_out = n_prompt;
  plan.prefill_flops = prefill_flops(plan, config);
  plan.cache_k = backend.resolve_cache_type(options.cache_k, "-ctk");
  plan.cache_v = backend.resolve_cache_type(options.cache_v, "-ctv");

  const std::size_t head_row = backend.cache_row_bytes({plan.cache_k, plan.cache_v, 0});
  const std::size_t row = head_row * std::size_t(plan.stored_heads);
  const auto cached = [&](const LayerPlan& layer) {
    const auto& heads = layer.head_kept;
    return heads.empty() ? std::size_t(layer.kept) * row
                         : std::size_t(std::accumulate(heads.begin(), heads.end(), std::int64_t(0))) * head_row;
  };
  for (const LayerPlan& layer : plan.layers) plan.cache_bytes_prompt += cached(layer);
  plan.cache_bytes_full =
      std::size_t(n_prompt) * std::size_t(config.n_layer) * head_row * std::size_t(config.n_head_kv);

  const BackendMemory bytes =
      backend.memory(n_prompt, std::max<std::int64_t>(options.score_rows, scoring_rows(plan, config)));
  plan.decode_weight_bytes = bytes.decode_weights;
  plan.cache_row_bytes = std::size_t(config.n_layer) * row;
  MemoryPlan& memory = plan.memory;
  memory.weights = bytes.weights;
  memory.file = weights.loaded ? 0 : std::max(bytes.load_extra, bytes.on_host ? weights.file_bytes : 0);
  memory.layer_kv = bytes.layer_kv;
  memory.scratch = bytes.scratch;
  const auto share = [&](std::size_t of_prompt, std::int64_t rows) {
    return std::size_t(double(of_prompt) * double(rows) / double(n_prompt));
  };
  const auto pass = [&](const LayerPlan& layer) {
    // rows that go on are gathered into a second buffer before the first is freed
    const std::int64_t gathered = layer.tokens_out < layer.tokens_in ? layer.tokens_out : 0;
    const std::size_t hidden = share(bytes.hidden, layer.tokens_in + gathered);
    memory.hidden = std::max(memory.hidden, hidden);
    memory.held = std::max(memory.held, memory.cache + hidden + share(bytes.layer_kv, layer.tokens_in));
  };
  for (const LayerPlan& layer : plan.filter_layers) pass(layer);
  for (const LayerPlan& layer : plan.layers) {
    memory.cache += cached(layer) + std::size_t(reserved_rows(plan, options)) * row;
    pass(layer);
  }
  if (options.all_logits && bytes.on_host)
    memory.scratch += 2 * std::size_t(n_prompt) * std::size_t(config.n_vocab) * sizeof(float);
  plan.nodes = backend.nodes(memory);
  memory.available = backend.available_memory() + (weights.loaded ? memory.weights : 0);
  return plan;
}

std::int64_t longest_prompt(const Backend& backend, const ModelConfig& config, std::int64_t n_prompt,
                            const RunOptions& options, const WeightState& weights) {
  const auto fits = [&](std::int64_t n) {
    try {
      const MemoryPlan memory = make_plan(backend, config, n, options, weights).memory;
      return memory.peak() <= memory.available;
    } catch (const Error&) {  // options that so short a prompt does not allow
      return false;
    }
  };
  std::int64_t longest = 0;
  for (std::int64_t above = n_prompt; above - longest > 1;) {
    const std::int64_t middle = longest + (above - longest) / 2;
    (fits(middle) ? longest : above) = middle;
  }
  return longest;
}

}  // namespace fastkv
