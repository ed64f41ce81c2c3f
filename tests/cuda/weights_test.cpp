// What decode reads of a file's tensors: which form each type takes, and that it holds the file's weights.
#include "backend/cuda/weights.hpp"

#include <cmath>
#include <map>
#include <tuple>

#include "core/half.hpp"
#include "core/quant_blocks.hpp"
#include "cuda_test.hpp"
#include "support/compare.hpp"
#include "support/random_model.hpp"

namespace fastkv::test {
namespace {

using cuda::DecodeMatrix;
using cuda::WeightForm;

class CudaWeights : public testing::Test {
 protected:
  /// What a form holds of a weight, and how far the rounding of its scales may have moved it.
  struct Weight {
    double value, moved;
  };

  static RandomShape shape(DType type) { return {"forms", 1, 256, 512, 4, 2, 64, 67, {type}, false, false, false}; }

  std::vector<Weight> read(const DecodeMatrix& m) {
    const std::size_t size = std::size_t(m.out) * std::size_t(m.in), groups = size / 32;
    std::vector<Weight> out;
    if (m.form == WeightForm::bfloat16) {
      for (const std::uint16_t bits : cuda::to_host(stream_, static_cast<const std::uint16_t*>(m.weights), size)) {
        const double w = double(bf16_to_f32(bits));
        out.push_back({w, 0x1p-8 * std::abs(w)});
      }
      return out;
    }
    const auto codes = cuda::to_host(stream_, static_cast<const std::uint8_t*>(m.weights),
                                     groups * std::size_t(cuda::code_bytes(m.form)));
    const auto scales = cuda::to_host(stream_, reinterpret_cast<const std::uint16_t*>(m.scales), groups * 2);
    const auto rounding = [](double x) { return 0x1p-11 * std::abs(x) + 0x1p-25; };  // to float16
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t g = i / 32, k = i % 32;
      if (m.form == WeightForm::q8) {
        const double scale = double(f16_to_f32(scales[2 * g + k / 16])), q = int(codes[i]) - 128;
        out.push_back({scale * q, rounding(scale) * std::abs(q)});
      } else {
        const double scale = double(f16_to_f32(scales[2 * g])), offset = double(f16_to_f32(scales[2 * g + 1]));
        const double q = codes[g * 16 + k % 16] >> (k < 16 ? 0 : 4) & 15;
        out.push_back({scale * q + offset, rounding(scale) * q + rounding(offset)});
      }
    }
    return out;
  }
  void expect_holds(const DecodeMatrix& m, const TensorView& t, WeightForm form, bool exact = false) {
    EXPECT_EQ(m.form, form);
    ASSERT_EQ(m.out, t.rows);
    ASSERT_EQ(m.in, t.cols);
    std::vector<float> expected(std::size_t(t.rows * t.cols));
    dequantize_row(t.type, t.data, expected.data(), expected.size());
    std::vector<double> found, bounds;
    for (const Weight& w : read(m)) {
      found.push_back(w.value);
      // what float16 and bfloat16 round is a little larger than what they give; the reference rounds to float32
      bounds.push_back((exact ? 0 : w.moved * 1.01) + 8 * kEps * (std::abs(w.value) + w.moved * 0x1p11));
    }
    expect_close(found, expected, bounds);
  }

  cuda::Stream stream_;
  RunControl control_;
};

TEST_F(CudaWeights, EveryTypeHasItsForm) {
  constexpr WeightForm b = WeightForm::bfloat16, q4 = WeightForm::q4, q8 = WeightForm::q8;
  const std::map<DType, WeightForm> forms = {
      {DType::f32, b},   {DType::f16, b},   {DType::bf16, b},    {DType::q4_0, q4},  {DType::q4_1, q4},
      {DType::q5_0, q8}, {DType::q5_1, b},  {DType::q8_0, q8},   {DType::q3_k, q8},  {DType::q4_k, q4},
      {DType::q5_k, b},  {DType::q6_k, q8}, {DType::iq4_nl, q8}, {DType::iq4_xs, q8}};
  for (const DTypeInfo& type : kDTypes) {
    SCOPED_TRACE(type.name);
    const WeightForm form = forms.at(type.type);
    const bool exact = form != b && type.block_weights == 32;
    const RandomModel model(shape(type.type), 4);
    const cuda::Weights w = cuda::load_weights(stream_, model.tensors, true, 2, {}, control_);
    const LayerTensors& t = model.tensors.layers[0];
    const cuda::LayerWeights& layer = w.layers[0];
    expect_holds(layer.decode_qkv[0], t.q, form, exact);
    expect_holds(layer.decode_qkv[1], t.k, form, exact);
    expect_holds(layer.decode_qkv[2], t.v, form, exact);
    expect_holds(layer.decode_o, t.o, form, exact);
    expect_holds(layer.decode_gate, t.gate, form, exact);
    expect_holds(layer.decode_up, t.up, form, exact);
    expect_holds(layer.decode_down, t.down, form, exact);
    expect_holds(w.decode_output, model.tensors.output, form, exact);
    EXPECT_EQ(w.narrowest, form);
    const std::size_t read = 256 * (256 + 128 + 128 + 256 + 3 * 512 + 67);
    EXPECT_EQ(w.decode_bytes, read / 32 * std::size_t(cuda::group_bytes(form)));
  }
}

// The prompt's bfloat16 and decode's integers lie beside each other.
TEST_F(CudaWeights, ThePlanCountsBoth) {
  const RandomModel model(shape(DType::q8_0), 4);
  std::vector<cuda::WeightCopy> copies;
  const cuda::Weights both = cuda::place_weights(model.tensors, true, nullptr, copies),
                      alone = cuda::place_weights(model.tensors, false, nullptr, copies);
  EXPECT_GE(both.bytes, alone.bytes + both.decode_bytes);
  EXPECT_LT(both.decode_bytes, alone.decode_bytes);
  EXPECT_EQ(alone.narrowest, WeightForm::bfloat16);
}

TEST_F(CudaWeights, GateAndUpShareAForm) {
  for (const auto& [gate, up, form] :
       {std::tuple{DType::q4_0, DType::q4_k, WeightForm::q4}, {DType::q4_0, DType::q8_0, WeightForm::bfloat16}}) {
    const RandomModel of_gate(shape(gate), 4), of_up(shape(up), 5);
    ModelTensors tensors = of_gate.tensors;
    tensors.layers[0].up = of_up.tensors.layers[0].up;
    const cuda::Weights w = cuda::load_weights(stream_, tensors, true, 1, {}, control_);
    expect_holds(w.layers[0].decode_gate, tensors.layers[0].gate, form);
    expect_holds(w.layers[0].decode_up, tensors.layers[0].up, form);
  }
}

}  // namespace
}  // namespace fastkv::test
