// The model shapes make-model knows, and which tensor gets which type in each file type.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fastkv::tools {

/// How the vocabulary of a shape is made (vocabulary.hpp).
enum class VocabularyKind { llama3, tekken, sentencepiece };

struct Shape {
  std::string_view name;
  std::uint32_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_ctx;
  float rope_base;
  float rope_factor;  ///< of Llama 3's frequency factors (rope_freqs.weight); 0: the file has none
  bool tied;          ///< no output.weight
  VocabularyKind vocabulary;
};

/// Every shape, in the order of --help.
const std::vector<Shape>& shapes();

/// A tensor to be written: dims as in the file, dims[0] contiguous.
struct TensorPlan {
  enum class Fill { normal, norm, rope_factors };
  std::string name;
  std::string type;  ///< as ggml spells it
  std::vector<std::uint64_t> dims;
  Fill fill = Fill::normal;
};

/// llama.cpp's number for general.file_type of `type` ("q4_k_m" → 15).
std::uint32_t file_type(std::string_view type);

/// All tensors of a file of `shape` in `type` (f32 f16 bf16 q4_0 q8_0 q4_k_m), with the mixture that llama.cpp's
/// quantiser chooses without an importance matrix.
std::vector<TensorPlan> plan_tensors(const Shape& shape, std::string_view type);

/// Llama 3's factors that divide θ_i (spec: wavelengths beyond the original context 8192 are slowed by `factor`).
std::vector<float> rope_factors(const Shape& shape);

}  // namespace fastkv::tools
