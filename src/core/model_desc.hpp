// A model as the engine sees it: numbers and tensor views, whatever file they came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"

namespace fastkv {

/// Hyper-parameters of a Llama-family decoder.
struct ModelConfig {
  std::string architecture;  ///< "llama"
  std::string name;          ///< general.name, may be empty
  int n_layer = 0;           ///< N
  int n_embd = 0;            ///< D
  int n_ff = 0;              ///< F
  int n_head = 0;            ///< H, query heads
  int n_head_kv = 0;         ///< K, key/value heads; H = G·K
  int head_dim = 0;          ///< d; H·d may differ from D
  int n_vocab = 0;           ///< V
  int n_ctx_train = 0;       ///< trained context
  float rms_eps = 1e-5f;
  float attention_scale = 0;  ///< 1/sqrt(d) unless the file says otherwise
  double rope_base = 10000.0;
  /// θ_i(pos) = pos · rope_inv_freq[i], i < d/2; base, linear/yarn scaling and rope_freqs factors already applied
  std::vector<double> rope_inv_freq;
  float rope_magnitude = 1.0f;  ///< factor on cos and sin (YaRN)
  bool rope_scaled = false;     ///< a scaling covers contexts beyond n_ctx_train

  int group() const { return n_head / n_head_kv; }
  int q_dim() const { return n_head * head_dim; }
  int kv_dim() const { return n_head_kv * head_dim; }
};

/// A tensor inside a mapped file: `rows` rows of `cols` weights, row-major; a vector has one row.
struct TensorView {
  std::string name;
  DType type = DType::f32;
  std::int64_t rows = 0;           ///< outputs (ne[1])
  std::int64_t cols = 0;           ///< inputs (ne[0], contiguous)
  const std::byte* data = nullptr;
  explicit operator bool() const { return data != nullptr; }
  std::size_t bytes() const { return std::size_t(rows) * row_bytes(type, std::size_t(cols)); }
};

struct LayerTensors {
  TensorView attn_norm;              ///< [D]
  TensorView q, k, v, o;             ///< [H·d, D], [K·d, D], [K·d, D], [D, H·d]
  TensorView q_bias, k_bias, v_bias, o_bias;  ///< optional, float
  TensorView ffn_norm;               ///< [D]
  TensorView gate, up, down;         ///< [F, D], [F, D], [D, F]
  TensorView gate_bias, up_bias, down_bias;   ///< optional, float
};

/// Views stay valid as long as the checkpoint that made them.
struct ModelTensors {
  TensorView token_embd;             ///< [V, D]
  TensorView output_norm;            ///< [D]
  TensorView output;                 ///< [V, D]; the same view as token_embd when tied
  bool tied = false;
  TensorView output_bias;            ///< optional [V]
  std::vector<LayerTensors> layers;  ///< [N]
};

}  // namespace fastkv
