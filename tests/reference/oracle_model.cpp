// The oracle's model: every weight of the file in double.
#include <algorithm>
#include <cmath>

#include "core/quant_blocks.hpp"
#include "reference/rounding.hpp"

namespace fastkv::test {
namespace {

std::vector<double> dequantized(const TensorView& view) {
  std::vector<float> row(std::size_t(view.cols));
  std::vector<double> out;
  out.reserve(std::size_t(view.rows * view.cols));
  for (std::int64_t r = 0; r < view.rows; ++r) {
    dequantize_row(view.type, view.data + std::size_t(r) * row_bytes(view.type, row.size()), row.data(), row.size());
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

Oracle::Linear linear(const TensorView& weight, const TensorView& bias) {
  Oracle::Linear out;
  out.in = weight.cols;
  out.out = weight.rows;
  const std::vector<double> w = dequantized(weight);
  out.weight.resize(w.size());
  out.step.assign(std::size_t((out.in + 63) / 64 * 2 * out.out), 0);
  for (std::int64_t o = 0; o < out.out; ++o) {
    const auto row = w.begin() + o * out.in;
    for (std::int64_t i = 0; i < out.in; ++i) out.weight[std::size_t(i * out.out + o)] = row[i];
    const std::vector<double> turned = rotated({row, row + out.in});
    for (std::size_t i = 0; i < turned.size(); ++i) {
      double& step = out.step[i / 32 * std::size_t(out.out) + std::size_t(o)];
      step = std::max(step, std::fabs(turned[i]));
    }
  }
  if (bias) out.bias = dequantized(bias);
  return out;
}

}  // namespace

Oracle::Oracle(const ModelConfig& config, const ModelTensors& tensors) : config_(config) {
  // The file's scale is a float; where it is the usual one, the double is meant.
  const double usual = 1.0 / std::sqrt(double(config.head_dim));
  scale_ = config.attention_scale == float(usual) ? usual : double(config.attention_scale);
  embedding_ = dequantized(tensors.token_embd);
  output_norm_ = dequantized(tensors.output_norm);
  output_ = linear(tensors.output, tensors.output_bias);
  for (const LayerTensors& t : tensors.layers) {
    layers_.push_back({dequantized(t.attn_norm), dequantized(t.ffn_norm), linear(t.q, t.q_bias), linear(t.k, t.k_bias),
                       linear(t.v, t.v_bias), linear(t.o, t.o_bias), linear(t.gate, t.gate_bias),
                       linear(t.up, t.up_bias), linear(t.down, t.down_bias)});
  }
}

}  // namespace fastkv::test
