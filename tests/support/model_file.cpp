// Writes a random model through the public GGUF writer.
#include "support/model_file.hpp"

#include <unistd.h>

#include <array>
#include <cmath>

#include "fastkv/gguf_writer.hpp"

namespace fastkv::test {

ModelFile::ModelFile(const RandomModel& model) {
  static int count = 0;
  path_ = std::filesystem::temp_directory_path() /
          ("fastkv-test-" + std::to_string(getpid()) + "-" + std::to_string(count++) + ".gguf");
  const ModelConfig& c = model.config;
  GgufWriter writer(path_.string());
  writer.add_string("general.architecture", "llama");
  writer.add_string("general.name", model.shape.name);
  writer.add("llama.block_count", std::uint32_t(c.n_layer));
  writer.add("llama.context_length", std::uint32_t(c.n_ctx_train));
  writer.add("llama.embedding_length", std::uint32_t(c.n_embd));
  writer.add("llama.feed_forward_length", std::uint32_t(c.n_ff));
  writer.add("llama.attention.head_count", std::uint32_t(c.n_head));
  writer.add("llama.attention.head_count_kv", std::uint32_t(c.n_head_kv));
  writer.add("llama.attention.key_length", std::uint32_t(c.head_dim));
  writer.add("llama.attention.value_length", std::uint32_t(c.head_dim));
  writer.add("llama.attention.layer_norm_rms_epsilon", c.rms_eps);
  writer.add("llama.rope.freq_base", float(c.rope_base));
  writer.add("llama.rope.dimension_count", std::uint32_t(c.head_dim));
  writer.add("llama.vocab_size", std::uint32_t(c.n_vocab));

  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  while (int(tokens.size()) < c.n_vocab) tokens.push_back("\xE2\x96\x81w" + std::to_string(tokens.size()));
  const std::vector<float> scores(tokens.size(), -1.0f);
  std::vector<std::int32_t> types(tokens.size(), 1);
  types[0] = 2;
  types[1] = types[2] = 3;
  writer.add_string("tokenizer.ggml.model", "llama");
  writer.add_strings("tokenizer.ggml.tokens", tokens);
  writer.add_array<float>("tokenizer.ggml.scores", scores);
  writer.add_array<std::int32_t>("tokenizer.ggml.token_type", types);
  writer.add("tokenizer.ggml.bos_token_id", std::uint32_t(1));
  writer.add("tokenizer.ggml.eos_token_id", std::uint32_t(2));
  writer.add("tokenizer.ggml.unknown_token_id", std::uint32_t(0));

  std::vector<TensorView> views = {model.tensors.token_embd, model.tensors.output_norm};
  if (!model.tensors.tied) views.push_back(model.tensors.output);
  if (model.tensors.output_bias) views.push_back(model.tensors.output_bias);
  // The factors that divide the angles; the configuration holds what is left after the division.
  std::vector<float> factors;
  for (std::size_t i = 0; i < c.rope_inv_freq.size(); ++i) {
    const double plain = std::pow(c.rope_base, -2.0 * double(i) / c.head_dim);
    factors.push_back(float(plain / c.rope_inv_freq[i]));
  }
  if (model.shape.rope_factors) {
    views.push_back({"rope_freqs.weight", DType::f32, 1, std::int64_t(factors.size()),
                     reinterpret_cast<const std::byte*>(factors.data())});
  }
  for (const LayerTensors& t : model.tensors.layers) {
    for (const TensorView& view : {t.attn_norm, t.q, t.k, t.v, t.o, t.q_bias, t.k_bias, t.v_bias, t.o_bias, t.ffn_norm,
                                   t.gate, t.up, t.down, t.gate_bias, t.up_bias, t.down_bias}) {
      if (view) views.push_back(view);
    }
  }
  for (const TensorView& view : views) {
    const std::array<std::uint64_t, 2> dims = {std::uint64_t(view.cols), std::uint64_t(view.rows)};
    writer.add_tensor(view.name, name(view.type), std::span(dims).first(view.rows == 1 ? 1 : 2));
  }
  for (const TensorView& view : views) writer.write({view.data, view.bytes()});
  writer.finish();
}

ModelFile::~ModelFile() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace fastkv::test
