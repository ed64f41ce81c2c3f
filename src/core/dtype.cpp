// Names of ggml's tensor types and the lookup of those fastkv reads.
#include "core/dtype.hpp"

#include <algorithm>
#include <cctype>

namespace fastkv {

std::optional<DType> dtype_from_ggml(std::uint32_t id) {
  for (const auto& entry : kDTypes) {
    if (static_cast<std::uint32_t>(entry.type) == id) return entry.type;
  }
  return std::nullopt;
}

std::string_view ggml_type_name(std::uint32_t id) {
  // By id; gaps are types ggml has withdrawn.
  constexpr std::string_view kNames[] = {
      "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
      "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
      "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
      "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
      "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4"};
  return id < std::size(kNames) ? kNames[id] : "?";
}

std::optional<DType> dtype_from_name(std::string_view name) {
  const auto same = [](char a, char b) {
    return std::toupper(static_cast<unsigned char>(a)) == std::toupper(static_cast<unsigned char>(b));
  };
  for (const auto& entry : kDTypes) {
    if (std::equal(name.begin(), name.end(), entry.name.begin(), entry.name.end(), same)) return entry.type;
  }
  return std::nullopt;
}

const DTypeInfo& info(DType type) {
  const auto* found =
      std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const auto& e) { return e.type == type; });
  return found == std::end(kDTypes) ? kDTypes[0] : *found;  // a DType holds no other value
}

}  // namespace fastkv
