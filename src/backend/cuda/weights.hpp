// All weights of a model on the device: bfloat16 for the prompt's products, and what decode reads of each matrix.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/device.hpp"
#include "backend/cuda/kernels/decode.hpp"

namespace fastkv::cuda {

/// A matrix of the prompt's products: w [out, in], bias [out] or null, in the type of the product.
struct Linear {
  const bf16* w = nullptr;
  const bf16* bias = nullptr;         ///< gate_up
  const float* float_bias = nullptr;  ///< all others: products in float32
  std::int64_t out = 0, in = 0;
};

struct LayerWeights {
  const float *attn_norm = nullptr, *ffn_norm = nullptr;  ///< [D]
  Linear q, kv, o, gate_up, down;                         ///< kv: keys' rows, then values'; gate_up: gate's, then up's
  DecodeMatrix decode_qkv[3], decode_o, decode_gate, decode_up, decode_down;
};

/// Everything lies in one piece of device memory.
struct Weights {
  const bf16* token_embd = nullptr;    ///< [V, D]
  const float* output_norm = nullptr;  ///< [D]
  Linear output;                       ///< [V, D]; token_embd if tied
  DecodeMatrix decode_output;
  std::vector<LayerWeights> layers;             ///< [N]
  std::size_t bytes = 0;                        ///< of all
  std::size_t decode_bytes = 0;                 ///< of these, what every token reads
  WeightForm narrowest = WeightForm::bfloat16;  ///< of what decode reads
  DeviceBuffer memory;
};

/// What goes where, of a tensor in the file.
struct WeightCopy {
  enum class Form {
    float32,
    bfloat16,
    codes,
    zeros
  } form;  ///< codes: integers to `to`, scales to `scales`; zeros: of `bytes`
  TensorView tensor;
  void* to = nullptr;
  __half2* scales = nullptr;
  std::size_t bytes = 0;
  bool last = false;                        ///< of this tensor
  WeightForm codes = WeightForm::bfloat16;  ///< q8 or q4
};

/// Lays all weights out from `base` (null: to know the bytes) and appends what is to be copied there. `keep_codes`:
/// matrices whose integers in the file fit a form of decode are kept in that too, beside the prompt's bfloat16.
Weights place_weights(const ModelTensors& tensors, bool keep_codes, std::byte* base, std::vector<WeightCopy>& copies);

/// Dequantises every tensor once, on `threads` host threads, and copies it to the device (weight_loader.cpp); then
/// calls `packed` (may be empty) for it. work counts file bytes.
Weights load_weights(cudaStream_t stream, const ModelTensors& tensors, bool keep_codes, int threads,
                     const std::function<void(const TensorView&)>& packed, RunControl& control);

}  // namespace fastkv::cuda
