// Rotary position frequencies with the scalings GGUF files of architecture `llama` ask for.
#pragma once

#include "core/model_desc.hpp"
#include "model/llama_keys.hpp"

namespace fastkv {

/// Fills the rope_* fields of `config`, whose head_dim and n_ctx_train are set:
///   θ_i = base^(-2i/d) / factor_i          factor_i from rope_freqs.weight, 1 without it (Llama 3.1 and later)
///   none    inv_freq_i = θ_i
///   linear  inv_freq_i = θ_i / s           s = rope.scaling.factor
///   yarn    inv_freq_i = θ_i·m_i + θ_i/s·(1 - m_i),  m_i = ext·(1 - clamp((i - low)/(high - low), 0, 1))
/// with low, high = ⌊c(beta_fast)⌋, ⌈c(beta_slow)⌉, c(β) = d·ln(L/(2πβ)) / (2·ln base), L the original context, and
/// magnitude 1 + 0.1·ln s (spec/models.md 4; divided by 1 + 0.1·log_multiplier·ln s where that key is given).
/// Throws Error unsupported for other scalings and for partial rotation.
void read_rope(const LlamaKeys& keys, ModelConfig& config);

}  // namespace fastkv
