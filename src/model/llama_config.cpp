// Reads the hyper-parameters of architecture `llama`.
#include <cmath>

#include "core/check.hpp"
#include "model/llama.hpp"
#include "model/llama_keys.hpp"
#include "model/rope.hpp"

namespace fastkv {
namespace {

// Caps far above real models; they keep products of two sizes inside 64 bits and refuse absurd files early.
constexpr std::uint32_t kMaxLayers = 4096;
constexpr std::uint32_t kMaxWidth = 1u << 20;
constexpr std::uint32_t kMaxHeads = 1u << 14;
constexpr std::uint32_t kMaxHeadDim = 1024;
constexpr std::uint32_t kMaxVocab = 1u << 24;
constexpr std::uint32_t kMaxContext = 0x7fffffff;

void read_attention(const LlamaKeys& keys, ModelConfig& config) {
  config.n_head = int(keys.uniform("attention.head_count", config.n_layer, kMaxHeads).value());
  const auto head_kv = keys.uniform("attention.head_count_kv", config.n_layer, kMaxHeads, /*required=*/false);
  config.n_head_kv = head_kv ? int(*head_kv) : config.n_head;
  check(config.n_head % config.n_head_kv == 0, ErrorCode::bad_file, keys.where("attention.head_count_kv"),
        "expected a divisor of the head count ", config.n_head, ", found ", config.n_head_kv);

  if (keys.has("attention.key_length")) {
    config.head_dim = int(keys.count("attention.key_length", kMaxHeadDim));
  } else {
    check(config.n_embd % config.n_head == 0, ErrorCode::bad_file, keys.where("attention.head_count"),
          "expected a divisor of the embedding length ", config.n_embd, ", found ", config.n_head);
    config.head_dim = config.n_embd / config.n_head;
  }
  check(config.head_dim % 8 == 0 && config.head_dim <= int(kMaxHeadDim), ErrorCode::unsupported,
        keys.where("attention.key_length"), "expected a head size that is a multiple of 8 up to ", kMaxHeadDim,
        ", found ", config.head_dim);
  if (keys.has("attention.value_length")) {
    const auto value_dim = int(keys.count("attention.value_length", kMaxHeadDim));
    check(value_dim == config.head_dim, ErrorCode::unsupported, keys.where("attention.value_length"),
          "expected the key length ", config.head_dim, ", found ", value_dim);
  }
  config.attention_scale = keys.file().find_f32(keys.key("attention.scale")).value_or(0.0f);
  check(config.attention_scale >= 0 && std::isfinite(config.attention_scale), ErrorCode::bad_file,
        keys.where("attention.scale"), "expected a finite value >= 0, found ", config.attention_scale);
  if (config.attention_scale == 0) config.attention_scale = 1.0f / std::sqrt(float(config.head_dim));
}

void read_vocab_size(const GgufFile& file, ModelConfig& config) {
  const auto* embedding = file.find_tensor("token_embd.weight");
  check(embedding != nullptr, ErrorCode::bad_file, file.path(),
        ": expected the tensor 'token_embd.weight', found none");
  check(embedding->dims[1] <= kMaxVocab, ErrorCode::bad_file, file.path(),
        ": tensor 'token_embd.weight': expected at most ", kMaxVocab, " rows, found ", embedding->dims[1]);
  config.n_vocab = int(embedding->dims[1]);
  const auto tokens = file.array_size("tokenizer.ggml.tokens");
  check(!tokens || *tokens == embedding->dims[1], ErrorCode::bad_file, file.path(),
        ": key 'tokenizer.ggml.tokens': expected as many tokens as 'token_embd.weight' has rows, ", config.n_vocab,
        ", found ", tokens.value_or(0));
}

}  // namespace

ModelConfig read_config(const GgufFile& file) {
  const auto architecture = file.get_string("general.architecture");
  check(architecture == "llama", ErrorCode::unsupported, file.path(), ": unsupported architecture ",
        quoted(architecture), "; supported: llama");
  const auto kind = file.find_string("general.type").value_or("model");
  check(kind == "model", ErrorCode::unsupported, file.path(), ": key 'general.type': expected 'model', found ",
        quoted(kind));

  const LlamaKeys keys(file);
  ModelConfig config;
  config.architecture = architecture;
  config.name = file.find_string("general.name").value_or("");
  const auto experts = file.find_u32(keys.key("expert_count")).value_or(0);
  check(experts == 0, ErrorCode::unsupported, keys.where("expert_count"),
        "mixtures of experts are not supported, found ", experts, " experts");
  config.n_layer = int(keys.count("block_count", kMaxLayers));
  config.n_embd = int(keys.count("embedding_length", kMaxWidth));
  config.n_ff = int(keys.uniform("feed_forward_length", config.n_layer, kMaxWidth).value());
  config.n_ctx_train = int(keys.count("context_length", kMaxContext));
  config.rms_eps = file.get_f32(keys.key("attention.layer_norm_rms_epsilon"));
  check(config.rms_eps > 0 && config.rms_eps < 1, ErrorCode::bad_file, keys.where("attention.layer_norm_rms_epsilon"),
        "expected a value between 0 and 1, found ", config.rms_eps);
  read_attention(keys, config);
  read_vocab_size(file, config);
  read_rope(keys, config);
  return config;
}

}  // namespace fastkv
