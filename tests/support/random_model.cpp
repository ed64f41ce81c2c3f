// Random weights with enough spread for attention to prefer some tokens over others.
#include "support/random_model.hpp"

#include <cmath>
#include <ostream>

#include "core/quant_blocks.hpp"

namespace fastkv::test {
TensorView RandomModel::quantized(const std::string& name, DType type, std::int64_t rows, std::int64_t cols,
                                  const std::vector<float>& values) {
  if (std::size_t(cols) % info(type).block_weights != 0) type = DType::f32;
  TensorView view{name, type, rows, cols, nullptr};
  storage_.push_back(std::make_unique<std::byte[]>(view.bytes()));
  std::byte* out = storage_.back().get();
  for (std::int64_t r = 0; r < rows; ++r) {
    quantize_row(type, &values[std::size_t(r * cols)], out + std::size_t(r) * row_bytes(type, std::size_t(cols)),
                 std::size_t(cols));
  }
  view.data = out;
  return view;
}

/// Normal weights of variance gain²/cols: unit inputs give outputs of size `gain`.
TensorView RandomModel::matrix(const std::string& name, std::int64_t rows, std::int64_t cols, double gain) {
  std::normal_distribution<float> normal(0, float(gain / std::sqrt(double(cols))));
  std::vector<float> values(std::size_t(rows * cols));
  for (float& v : values) v = normal(random_);
  return quantized(name, shape.types[next_type_++ % shape.types.size()], rows, cols, values);
}

TensorView RandomModel::vector(const std::string& name, std::int64_t size, double mean, double spread) {
  std::normal_distribution<float> normal{float(mean), float(spread)};
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& v : values) v = normal(random_);
  return quantized(name, DType::f32, 1, size, values);
}

RandomModel::RandomModel(const RandomShape& s, std::uint64_t seed_used)
    : shape(s), seed(seed_used), random_(seed_used) {
  config.architecture = "llama";
  config.name = s.name;
  config.n_layer = s.n_layer;
  config.n_embd = s.n_embd;
  config.n_ff = s.n_ff;
  config.n_head = s.n_head;
  config.n_head_kv = s.n_head_kv;
  config.head_dim = s.head_dim;
  config.n_vocab = s.n_vocab;
  config.n_ctx_train = 4096;
  config.rms_eps = 1e-5f;
  config.attention_scale = float(1.0 / std::sqrt(double(s.head_dim)));
  config.rope_base = 10000.0;
  for (int i = 0; i < s.head_dim / 2; ++i) {
    const double factor = s.rope_factors ? 1.0 + 7.0 * i / s.head_dim : 1.0;
    config.rope_inv_freq.push_back(std::pow(config.rope_base, -2.0 * i / s.head_dim) / factor);
  }
  const std::int64_t d = s.n_embd, f = s.n_ff, q = config.q_dim(), kv = config.kv_dim();
  tensors.token_embd = matrix("token_embd.weight", s.n_vocab, d, std::sqrt(double(d)));
  tensors.output_norm = vector("output_norm.weight", d, 1, 0.1);
  tensors.tied = s.tied;
  tensors.output = s.tied ? tensors.token_embd : matrix("output.weight", s.n_vocab, d, 2);
  for (int l = 0; l < s.n_layer; ++l) {
    const std::string blk = "blk." + std::to_string(l) + ".";
    LayerTensors t;
    t.attn_norm = vector(blk + "attn_norm.weight", d, 1, 0.1);
    // q·k/sqrt(d) then spreads over about ±2: peaked attention, with ranks that rounding rarely swaps.
    t.q = matrix(blk + "attn_q.weight", q, d, 1.4);
    t.k = matrix(blk + "attn_k.weight", kv, d, 1.4);
    t.v = matrix(blk + "attn_v.weight", kv, d, 1);
    t.o = matrix(blk + "attn_output.weight", d, q, 0.7);
    t.ffn_norm = vector(blk + "ffn_norm.weight", d, 1, 0.1);
    t.gate = matrix(blk + "ffn_gate.weight", f, d, 1);
    t.up = matrix(blk + "ffn_up.weight", f, d, 1);
    t.down = matrix(blk + "ffn_down.weight", d, f, 0.7);
    if (s.biases) {
      t.q_bias = vector(blk + "attn_q.bias", q, 0, 0.3);
      t.k_bias = vector(blk + "attn_k.bias", kv, 0, 0.3);
      t.v_bias = vector(blk + "attn_v.bias", kv, 0, 0.3);
      t.o_bias = vector(blk + "attn_output.bias", d, 0, 0.1);
      t.gate_bias = vector(blk + "ffn_gate.bias", f, 0, 0.1);
      t.up_bias = vector(blk + "ffn_up.bias", f, 0, 0.1);
      t.down_bias = vector(blk + "ffn_down.bias", d, 0, 0.1);
    }
    tensors.layers.push_back(t);
  }
  if (s.biases) tensors.output_bias = vector("output.bias", s.n_vocab, 0, 0.1);
}

std::vector<std::int32_t> RandomModel::prompt(std::int64_t n) const {
  std::mt19937_64 random(seed * 7919 + std::uint64_t(n));
  std::uniform_int_distribution<std::int32_t> any(0, config.n_vocab - 1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (std::int32_t& id : ids) id = any(random);
  return ids;
}

std::ostream& operator<<(std::ostream& out, const RandomModel& m) {
  return out << "model " << m.shape.name << ", seed " << m.seed << ", H " << m.config.n_head << ", K "
             << m.config.n_head_kv << ", d " << m.config.head_dim << ", D " << m.config.n_embd;
}

}  // namespace fastkv::test
