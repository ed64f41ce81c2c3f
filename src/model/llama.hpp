// Llama-family decoders in GGUF files: hyper-parameters and weights of architecture `llama` (spec/models.md 3, 4).
#pragma once

#include "core/model_desc.hpp"
#include "model/gguf.hpp"

namespace fastkv {

/// The hyper-parameters of `file`, with RoPE scaling and frequency factors folded into rope_inv_freq.
/// Throws Error unsupported (another architecture, experts, a RoPE scaling that is not implemented, heads that differ
/// by layer: named in the message) or bad_file (missing or absurd values).
ModelConfig read_config(const GgufFile& file);

/// The weights of `file` as views into it, with the shapes `config` implies. A fused attn_qkv is split into three
/// views. Throws Error unsupported (a tensor type outside kDTypes, a tensor that is no part of this architecture) or
/// bad_file (missing, wrong shape); the message names the tensor.
ModelTensors read_tensors(const GgufFile& file, const ModelConfig& config);

}  // namespace fastkv
