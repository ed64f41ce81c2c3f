// The table of tensor types.
#include "core/dtype.hpp"

#include <gtest/gtest.h>

namespace fastkv {
namespace {

TEST(DType, TableAgreesWithItself) {
  for (const auto& entry : kDTypes) {
    const auto id = static_cast<std::uint32_t>(entry.type);
    EXPECT_EQ(dtype_from_ggml(id), entry.type);
    EXPECT_EQ(ggml_type_name(id), entry.name);
    EXPECT_EQ(dtype_from_name(entry.name), entry.type);
    EXPECT_EQ(name(entry.type), entry.name);
  }
  EXPECT_EQ(dtype_from_name("q4_k"), DType::q4_k);
  EXPECT_EQ(row_bytes(DType::q4_k, 512), 288u);
}

TEST(DType, OthersHaveOnlyNames) {
  EXPECT_EQ(ggml_type_name(10), "Q2_K");
  EXPECT_EQ(ggml_type_name(16), "IQ2_XXS");
  EXPECT_EQ(ggml_type_name(39), "MXFP4");
  EXPECT_EQ(ggml_type_name(0xffffffffu), "?");
  EXPECT_FALSE(dtype_from_ggml(10));
  EXPECT_FALSE(dtype_from_ggml(4));
  EXPECT_FALSE(dtype_from_name("Q2_K"));
  EXPECT_FALSE(dtype_from_name("Q4"));
  EXPECT_FALSE(dtype_from_name(""));
}

}  // namespace
}  // namespace fastkv
