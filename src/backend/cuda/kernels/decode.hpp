// Products of a matrix with one vector and what lies between them in a decode step.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace fastkv::cuda {

using bf16 = __nv_bfloat16;

/// Weights of decode on the device: bfloat16, or the file's own 4-bit integers so that a token reads a quarter.
enum class WeightForm {
  bf16,  ///< [out, in]
  q4,    ///< w = scale · q + offset, 4-bit q, scale and offset float16 per 32 inputs (Q4_0, Q4_1)
};

/// A matrix [out, in] of decode.
struct DecodeMatrix {
  WeightForm form = WeightForm::bf16;
  const void* weights = nullptr;        ///< bf16 [out][in], or nibbles [out][in/32][16]: input k and k + 16 share byte k
  const __half2* scales = nullptr;      ///< q4: [out][in/32] {scale, offset}
  const float* bias = nullptr;          ///< [out] or null
  int out = 0, in = 0;
};

/// What the token of a step is, on the device: a captured graph reads it anew each time it is launched.
struct StepState {
  std::int32_t token;     ///< to be fed
  std::int32_t position;  ///< of that token
  std::int32_t appended;  ///< rows that decode has appended to every head, this token's included
};

/// x [D] float32 = embedding row of state->token.
void embed_token(cudaStream_t stream, const bf16* table, const StepState* state, int width, float* x);

/// out [D] bfloat16 = weight ∘ x / rms(x).
void norm_token(cudaStream_t stream, const float* x, int width, const float* weight, float eps, bf16* out);

/// y [out] float32 (+)= W · x [in] + bias; `add`: onto what y holds (the residual stream).
void matrix_vector(cudaStream_t stream, const DecodeMatrix& w, const bf16* x, float* y, bool add);

/// out [F] bfloat16 = silu(gate · x) ∘ (up · x).
void gate_up_vector(cudaStream_t stream, const DecodeMatrix& gate, const DecodeMatrix& up, const bf16* x, bf16* out);

/// Rotates `heads` heads of x [heads][d] float32 in place by the angles of state->position.
void rotate_token(cudaStream_t stream, float* x, int heads, int d, const StepState* state, const double* inv_freq,
                  float magnitude);

/// The largest of logits [V] that is not among banned [n] (ties: the lower id) becomes state->token and *best, and the
/// state moves on by one position and row.
void arg_max(cudaStream_t stream, const float* logits, int vocab, const std::int32_t* banned, int n_banned, void* work,
             StepState* state, std::int32_t* best);
std::size_t arg_max_bytes(int vocab);

}  // namespace fastkv::cuda
