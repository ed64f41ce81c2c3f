// The block formats against golden values made with ggml's own Python package, and against each other.
#include "core/quant_blocks.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/half.hpp"

namespace fastkv {
namespace {

/// 256 weights whose bytes are a fixed pseudo-random stream, with float16 0.5 (and 0.25) put where the format keeps its
/// scale (and minimum). `weights` are those at kIndices and `checksum` is Σ (i+1)·w_i, both from gguf-py's dequantize;
/// every weight is a small multiple of 1/4, so both are exact.
struct Golden {
  DType type;
  std::vector<std::size_t> halves;
  std::array<float, 12> weights;
  double checksum;
};

constexpr std::size_t kIndices[12] = {0, 1, 15, 16, 31, 33, 64, 100, 127, 128, 191, 255};

const Golden kGolden[] = {
    {DType::q4_0, {0}, {-4.0f, 2.5f, -0.5f, -2.5f, -1.5f, 1.0f, -1.0f, -2.0f, 3.0f, 3.5f, -0.5f, 3.5f}, -6891},
    {DType::q4_1,
     {0, 2},
     {1.25f, 6.75f, 7.25f, 3.25f, 2.25f, 3.75f, 2.25f, 5.75f, 3.25f, 1.75f, 0.25f, 0.75f},
     127066.5},
    {DType::q5_0, {0}, {7.0f, -6.5f, 5.5f, -1.0f, -1.0f, 3.0f, -3.0f, 6.5f, 0.0f, 7.5f, -3.5f, -4.0f}, -5031.5},
    {DType::q5_1,
     {0, 2},
     {0.75f, 5.75f, 15.75f, 0.75f, 5.75f, 15.75f, 6.25f, 9.25f, 13.75f, 14.25f, 7.75f, 11.25f},
     269999.5},
    {DType::q8_0,
     {0},
     {38.0f, -5.0f, 55.0f, -29.5f, 29.0f, -32.5f, 22.5f, -25.0f, -31.0f, -9.0f, -1.5f, -14.0f},
     -109330.5},
    {DType::q3_k, {108}, {-40.5f, 54.0f, 13.5f, 19.0f, 19.0f, -10.5f, -7.5f, 10.0f, 0.0f, -1.0f, 4.5f, 5.0f}, 3307.5},
    {DType::q4_k,
     {0, 2},
     {174.5f, 224.0f, 26.0f, 224.0f, 75.5f, 82.75f, 12.75f, 123.0f, 208.0f, 34.75f, 110.0f, 310.25f},
     4563725},
    {DType::q5_k,
     {0, 2},
     {52.5f, 76.5f, 142.5f, -7.5f, 172.5f, 190.5f, 187.75f, -2.75f, -8.75f, -1.25f, 49.0f, 176.75f},
     6998590},
    {DType::q6_k,
     {208},
     {-201.5f, 62.0f, 93.0f, 1276.0f, 1798.0f, -652.5f, -100.5f, 54.0f, -847.0f, -408.5f, -80.0f, 540.0f},
     -1079546.5},
    {DType::iq4_nl,
     {0},
     {-32.5f, 0.5f, 34.5f, 0.5f, 6.5f, 26.5f, -41.5f, 12.5f, -41.5f, -17.5f, 34.5f, -32.5f},
     -135105},
    {DType::iq4_xs,
     {0},
     {175.0f, 50.0f, 175.0f, 325.0f, -445.0f, -724.5f, 622.5f, 247.0f, 247.0f, -821.5f, 60.0f, -121.0f},
     434350.5},
};

/// The stream of the golden values.
std::vector<std::uint8_t> golden_bytes(const Golden& golden) {
  std::vector<std::uint8_t> bytes(row_bytes(golden.type, 256));
  auto state = static_cast<std::uint32_t>(golden.type);
  for (auto& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = std::uint8_t(state >> 24);
  }
  const std::uint16_t values[2] = {f32_to_f16(0.5f), f32_to_f16(0.25f)};
  for (std::size_t block = 0; block < bytes.size(); block += info(golden.type).block_bytes) {
    for (std::size_t k = 0; k < golden.halves.size(); ++k) std::memcpy(&bytes[block + golden.halves[k]], &values[k], 2);
  }
  return bytes;
}

TEST(QuantBlocks, DequantisesAsGgml) {
  for (const auto& golden : kGolden) {
    const auto bytes = golden_bytes(golden);
    std::vector<float> x(256);
    dequantize_row(golden.type, bytes.data(), x.data(), x.size());
    double checksum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) checksum += double(i + 1) * x[i];
    EXPECT_EQ(checksum, golden.checksum) << name(golden.type);
    for (std::size_t k = 0; k < 12; ++k)
      EXPECT_EQ(x[kIndices[k]], golden.weights[k]) << name(golden.type) << " " << kIndices[k];
  }
}

/// Root mean square of (x - round trip of x), over that of x, which is normal.
double relative_error(DType type, const std::vector<float>& x) {
  std::vector<std::uint8_t> packed(row_bytes(type, x.size()));
  std::vector<float> back(x.size());
  quantize_row(type, x.data(), packed.data(), x.size());
  dequantize_row(type, packed.data(), back.data(), x.size());
  double error = 0, power = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(double(x[i]) - back[i], 2);
    power += std::pow(double(x[i]), 2);
  }
  return std::sqrt(error / power);
}

/// Measured on normal weights, plus a tenth: a wrong scale or a shifted code is far outside.
TEST(QuantBlocks, RoundTripErrorIsTheFormats) {
  const std::pair<DType, double> kErrors[] = {
      {DType::f32, 0},        {DType::f16, 0.00023},  {DType::bf16, 0.0019}, {DType::q4_0, 0.095},
      {DType::q4_1, 0.086},   {DType::q5_0, 0.047},   {DType::q5_1, 0.042},  {DType::q8_0, 0.0059},
      {DType::q3_k, 0.16},    {DType::q4_k, 0.087},   {DType::q5_k, 0.0425}, {DType::q6_k, 0.02},
      {DType::iq4_nl, 0.082}, {DType::iq4_xs, 0.083},
  };
  static_assert(std::size(kErrors) == std::size(kDTypes));
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> x(256 * 256);
  for (auto& value : x) value = normal(random);
  for (const auto& [type, limit] : kErrors) EXPECT_LE(relative_error(type, x), limit) << name(type);
}

/// Blocks of one value, of zeros, and of values that are all negative or all positive.
TEST(QuantBlocks, DegenerateBlocks) {
  for (const auto& type : kDTypes) {
    for (const float value : {0.0f, 1.0f, -1.0f, 1e-3f}) {
      const std::vector<float> x(512, value);
      std::vector<std::uint8_t> packed(row_bytes(type.type, x.size()));
      std::vector<float> back(x.size(), 99.0f);
      quantize_row(type.type, x.data(), packed.data(), x.size());
      dequantize_row(type.type, packed.data(), back.data(), x.size());
      for (const float b : back) ASSERT_NEAR(b, value, 0.04f * std::abs(value)) << type.name;
    }
  }
}

TEST(QuantBlocks, WritesNothingBeyondTheRow) {
  for (const auto& type : kDTypes) {
    const std::size_t n = type.block_weights * 3;
    std::vector<float> x(n, 0.5f);
    std::vector<std::uint8_t> packed(row_bytes(type.type, n) + 8, 0xab);
    quantize_row(type.type, x.data(), packed.data(), n);
    for (std::size_t i = packed.size() - 8; i < packed.size(); ++i) EXPECT_EQ(packed[i], 0xab) << type.name;
    x.assign(n + 4, 7.0f);
    dequantize_row(type.type, packed.data(), x.data(), n);
    for (std::size_t i = n; i < x.size(); ++i) EXPECT_EQ(x[i], 7.0f) << type.name;
  }
}

}  // namespace
}  // namespace fastkv
