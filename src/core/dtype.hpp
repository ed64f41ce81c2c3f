// The tensor types of GGUF files that fastkv reads, with their block shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fastkv {

/// Values are ggml's type ids (spec/models.md 1).
enum class DType : std::uint32_t {
  f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8, q3_k = 11, q4_k = 12, q5_k = 13, q6_k = 14,
  iq4_nl = 20, iq4_xs = 23, bf16 = 30,
};

struct DTypeInfo {
  DType type;
  std::string_view name;         ///< as ggml prints it: "Q4_K"
  std::size_t block_weights;     ///< weights per block along a row
  std::size_t block_bytes;       ///< bytes per block
};

/// Every supported type, in the order above.
inline constexpr DTypeInfo kDTypes[] = {
    {DType::f32, "F32", 1, 4},        {DType::f16, "F16", 1, 2},        {DType::q4_0, "Q4_0", 32, 18},
    {DType::q4_1, "Q4_1", 32, 20},    {DType::q5_0, "Q5_0", 32, 22},    {DType::q5_1, "Q5_1", 32, 24},
    {DType::q8_0, "Q8_0", 32, 34},    {DType::q3_k, "Q3_K", 256, 110},  {DType::q4_k, "Q4_K", 256, 144},
    {DType::q5_k, "Q5_K", 256, 176},  {DType::q6_k, "Q6_K", 256, 210},  {DType::iq4_nl, "IQ4_NL", 32, 18},
    {DType::iq4_xs, "IQ4_XS", 256, 136}, {DType::bf16, "BF16", 1, 2},
};

/// The type with ggml id `id`; nullopt: not supported.
std::optional<DType> dtype_from_ggml(std::uint32_t id);
/// ggml's name of any id, supported or not ("Q2_K"), for error messages; "type 99" style is left to the caller: "?".
std::string_view ggml_type_name(std::uint32_t id);
/// By name, any case; nullopt: unknown.
std::optional<DType> dtype_from_name(std::string_view name);

const DTypeInfo& info(DType type);
inline std::string_view name(DType type) { return info(type).name; }
/// Bytes of a row of `cols` weights; `cols` is a multiple of block_weights.
inline std::size_t row_bytes(DType type, std::size_t cols) { return cols / info(type).block_weights * info(type).block_bytes; }

}  // namespace fastkv
