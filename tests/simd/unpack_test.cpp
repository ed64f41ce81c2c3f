// Packed panels to compute panels: codes and scales exactly, float weights bitwise as ggml computes them.
#include "simd/support/panels.hpp"

namespace fastkv::test {
namespace {

using simd::Packing;

TEST(PackingInfo, DescribesTheLayoutThatThePackerWrites) {
  std::mt19937 random(1);
  for (const Packing p : kPackings) {
    SCOPED_TRACE(name(p));
    const simd::PackingInfo& info = simd::info(p);
    EXPECT_EQ(info.packing, p);
    const Panel panel = make_panel(p, 512, random);
    EXPECT_EQ(panel.bytes.size(), simd::panel_bytes(p, 512));
    EXPECT_EQ(info.block, is_256(p) ? 256 : 32);
  }
}

class Unpack : public KernelTest {};

TEST_P(Unpack, Int8PanelsAreExact) {
  for (const Packing p : kPackings) {
    if (is_float(p)) continue;
    SCOPED_TRACE(name(p));
    const std::int64_t k = some_k(p);
    const Panel panel = make_panel(p, k, random);
    const int group = simd::info(p).scale_group;
    const bool affine = simd::info(p).affine;
    Aligned<std::uint8_t> q(std::size_t(k * 16));
    Aligned<float> scale(std::size_t(k / group * 16)), min(affine ? std::size_t(k / 32 * 16) : 0);
    kernels().unpack_i8(p, panel.bytes.data(), k, q.data(), scale.data(), affine ? min.data() : nullptr);
    for (std::int64_t i = 0; i < k; ++i) {
      for (int r = 0; r < 16; ++r) {
        const std::size_t at = std::size_t(i * 16 + r);
        ASSERT_EQ(q[std::size_t(i / 4 * 64 + r * 4 + i % 4)], panel.q[at]) << "input " << i << " row " << r;
        ASSERT_EQ(scale[std::size_t(i / group * 16 + r)], panel.scale[at]) << "input " << i << " row " << r;
        if (affine) {
          ASSERT_EQ(min[std::size_t(i / 32 * 16 + r)], panel.min[at]) << "input " << i << " row " << r;
        }
      }
    }
  }
}

TEST_P(Unpack, Float32PanelsAreBitwiseGgmls) {
  for (const Packing p : kPackings) {
    SCOPED_TRACE(name(p));
    const std::int64_t k = some_k(p);
    const Panel panel = make_panel(p, k, random);
    Aligned<float> out(std::size_t(k * 16));
    kernels().unpack_f32(p, panel.bytes.data(), k, out.data());
    EXPECT_EQ(bits(out), bits(panel.w));
  }
}

TEST_P(Unpack, Bfloat16PanelsAreTheFloatsRounded) {
  for (const Packing p : kPackings) {
    SCOPED_TRACE(name(p));
    const std::int64_t k = some_k(p);
    const Panel panel = make_panel(p, k, random);
    Aligned<std::uint16_t> out(std::size_t(k * 16));
    kernels().unpack_bf16(p, panel.bytes.data(), k, out.data());
    for (std::int64_t i = 0; i < k; ++i) {
      for (int r = 0; r < 16; ++r) {
        ASSERT_EQ(out[std::size_t(i / 2 * 32 + r * 2 + i % 2)], to_bf16(panel.w[std::size_t(i * 16 + r)]))
            << "input " << i << " row " << r;
      }
    }
  }
}

TEST_P(Unpack, FloatPackingsAreRoundedToInt8) {
  for (const Packing p : {Packing::f32, Packing::f16, Packing::bf16}) {
    SCOPED_TRACE(name(p));
    const std::int64_t k = 96;
    Panel panel = make_panel(p, k, random);
    const std::size_t row_bytes = panel.bytes.size() / std::size_t(k);
    std::fill_n(panel.bytes.begin(), row_bytes * 32, std::uint8_t(0));  // the first group: all zeros
    std::fill_n(panel.w.begin(), 32 * 16, 0.f);
    Aligned<std::uint8_t> q(std::size_t(k * 16));
    Aligned<float> scale(std::size_t(k / 32 * 16));
    kernels().unpack_i8(p, panel.bytes.data(), k, q.data(), scale.data(), nullptr);
    for (std::int64_t g = 0; g < k / 32; ++g) {
      for (int r = 0; r < 16; ++r) {
        float top = 0;
        for (std::int64_t i = 32 * g; i < 32 * g + 32; ++i) {
          top = std::max(top, std::abs(panel.w[std::size_t(i * 16 + r)]));
        }
        const float s = scale[std::size_t(g * 16 + r)];
        EXPECT_EQ(s, top / 127.f);
        for (std::int64_t i = 32 * g; i < 32 * g + 32; ++i) {
          const int code = q[std::size_t(i / 4 * 64 + r * 4 + i % 4)];
          ASSERT_TRUE(code >= 1 && code <= 255) << code;
          // Half a step, and the rounding of x·(127/max), whose magnitude is at most 127 steps.
          ASSERT_TRUE(close(double(s) * (code - 128), panel.w[std::size_t(i * 16 + r)], s * (0.5 + 127 * 4 * kEps)));
        }
      }
    }
  }
}

FASTKV_EVERY_ISA(Unpack);

}  // namespace
}  // namespace fastkv::test
