// The block formats of quantised GGUF tensors: bytes to float32 and back, exactly as ggml defines them.
// Plain scalar code: the definition the kernels are tested against, used where speed does not matter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"

namespace fastkv {

/// out[0..n) = the weights of `n` (multiple of the block) elements at `src`. Every type of kDTypes.
void dequantize_row(DType type, const void* src, float* out, std::size_t n);

/// dst = `n` weights of x[0..n) in `type`; f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q4_k q6_k iq4_nl… every type of kDTypes
/// (simple scale searches: minimises nothing fancy, error within the format's step).
void quantize_row(DType type, const float* x, void* dst, std::size_t n);

/// The 16 levels of IQ4_NL and IQ4_XS.
extern const std::int8_t kIq4Levels[16];

}  // namespace fastkv
