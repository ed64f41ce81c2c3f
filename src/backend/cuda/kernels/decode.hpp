// Products of a matrix with one vector and what lies between them in a decode step.
//
// A step reads every weight once and does little else, so what counts is that memory is never idle: a product takes in
// the norm before it and the residual sum or the gate after it, and its loads run ahead of its arithmetic.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

namespace fastkv::cuda {

using bf16 = __nv_bfloat16;

/// Weights of decode on the device: bfloat16, or the file's own integers, so that a token reads half or a third.
enum class WeightForm {
  bfloat16,  ///< [out, in]
  q8,        ///< w = scale · q, 8-bit q, scale float16 per 16 inputs; in % 32 = 0
  q4,        ///< w = scale · q + offset, 4-bit q, scale and offset float16 per 32 inputs; in % 32 = 0
};
/// Bytes of 32 weights: all, and those of the integers alone.
constexpr int group_bytes(WeightForm form) { return form == WeightForm::q4 ? 20 : form == WeightForm::q8 ? 36 : 64; }
constexpr int code_bytes(WeightForm form) { return form == WeightForm::bfloat16 ? 64 : group_bytes(form) - 4; }

/// A matrix [out, in] of decode.
struct DecodeMatrix {
  WeightForm form = WeightForm::bfloat16;
  /// bf16 [out][in]; q8: bytes q + 128 [out][in]; q4: nibbles [out][in/32][16], input k and k + 16 share byte k
  const void* weights = nullptr;
  const __half2* scales = nullptr;  ///< [out][in/32]; q8: of both halves of the inputs; q4: {scale, offset}
  const float* bias = nullptr;      ///< [out] or null
  int out = 0, in = 0;              ///< in: a multiple of 4
};

/// What the token of a step is, on the device: a captured graph reads it anew each time it is launched.
struct StepState {
  std::int32_t token;     ///< to be fed
  std::int32_t position;  ///< of that token
  std::int32_t appended;  ///< rows that decode has appended to every head, this token's included
  bool operator==(const StepState&) const = default;
};

/// The residual stream x [in] float32 as a product takes it: h = weight ∘ x / rms(x), rounded to bfloat16.
struct NormedInput {
  const float* x = nullptr;
  const float* weight = nullptr;
  float eps = 0;
};

/// Which outputs of a product are heads to be rotated, and by how much.
struct Rotation {
  const float2* angles = nullptr;  ///< [d/2] cosine and sine of each pair of neighbours, times the model's magnitude
  int d = 0;                       ///< of a head; even
  int outputs = 0;                 ///< the first of all; a multiple of d
};

/// x [D] float32 = embedding row of state->token; angles [d/2] of state->position, computed once for all layers.
void embed_token(cudaStream_t stream, const bf16* table, const StepState* state, int width, const double* inv_freq,
                 int d, float magnitude, float* x, float2* angles);

/// y float32 = W·h + bias of each of up to three matrices over the same inputs, one after another; the first outputs
/// rotated (each matrix that has any has a multiple of d outputs).
void project(cudaStream_t stream, std::span<const DecodeMatrix> matrices, const NormedInput& input,
             const Rotation& rotation, float* y);

/// y [out] float32 += W·x + bias: the residual stream.
void add_product(cudaStream_t stream, const DecodeMatrix& w, const bf16* x, float* y);

/// out [F] bfloat16 = silu(gate·h) ∘ (up·h). Both matrices have the same form.
void gate_up(cudaStream_t stream, const DecodeMatrix& gate, const DecodeMatrix& up, const NormedInput& input,
             bf16* out);

/// The largest of logits [V] that is not among banned [n] (ties: the lower id) becomes state->token and *best, and the
/// state moves on by one position and row. If a logit is NaN or +∞, or none is finite, *best = −1 and the state stays.
/// `work`: arg_max_bytes().
void arg_max(cudaStream_t stream, const float* logits, int vocab, const std::int32_t* banned, int n_banned, void* work,
             StepState* state, std::int32_t* best);
std::size_t arg_max_bytes(int vocab);

}  // namespace fastkv::cuda
