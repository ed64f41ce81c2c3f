// Packed panels to float weights, bitwise as ggml computes them, and to bfloat16.
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

FASTKV_EVERY_ISA(Unpack);

}  // namespace
}  // namespace fastkv::test
