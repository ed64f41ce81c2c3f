// Products of a matrix with one vector in each form of weights, and the choice of a token, against double arithmetic.
#include "backend/cuda/kernels/decode.hpp"

#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "backend/cuda/device.hpp"
#include "core/half.hpp"
#include "cuda_test.hpp"
#include "support/compare.hpp"

namespace fastkv::test {
namespace {

using cuda::DecodeMatrix;
using cuda::DeviceArray;
using cuda::NormedInput;
using cuda::StepState;
using cuda::Stream;
using cuda::to_device;
using cuda::to_host;
using cuda::WeightForm;
using bf16 = __nv_bfloat16;

constexpr double kBf16 = 0x1p-8;  ///< unit roundoff of bfloat16
constexpr float kEpsilon = 1e-5f;

/// A matrix on the device and its exact values.
struct Matrix {
  DecodeMatrix view;
  std::vector<double> weights;  ///< [out, in]
  std::vector<double> raised;   ///< the largest that each weight is handled as: 4-bit ones are 128 steps higher
  std::vector<float> bias;
  DeviceArray<bf16> wide;
  DeviceArray<std::uint8_t> codes;
  DeviceArray<std::uint16_t> scales;
  DeviceArray<float> device_bias;
};

class DecodeTest : public testing::Test {
 protected:
  Matrix matrix(WeightForm form, int out, int in, bool biased) {
    Matrix m;
    m.view.form = form;
    m.view.out = out;
    m.view.in = in;
    if (form == WeightForm::bfloat16) {
      std::vector<bf16> w;
      for (int i = 0; i < out * in; ++i) w.push_back(bf16(normal_(random_)));
      for (const bf16 one : w) m.weights.push_back(double(float(one)));
      m.raised = m.weights;
      m.wide = to_device<bf16>(stream_, w, "weights");
      m.view.weights = m.wide.data();
    } else if (form == WeightForm::q8) {
      std::vector<std::uint8_t> codes(std::size_t(out * in));
      for (std::uint8_t& code : codes) code = std::uint8_t(random_());
      std::vector<std::uint16_t> scales;
      for (int h = 0; h < out * in / 16; ++h) scales.push_back(f32_to_f16(0.01f * normal_(random_)));
      for (std::size_t i = 0; i < codes.size(); ++i)
        m.weights.push_back(double(f16_to_f32(scales[i / 16])) * (int(codes[i]) - 128));
      m.raised = m.weights;
      m.codes = to_device<std::uint8_t>(stream_, codes, "codes");
      m.scales = to_device<std::uint16_t>(stream_, scales, "scales");
    } else {
      std::vector<std::uint8_t> nibbles(std::size_t(out * in / 2));
      for (std::uint8_t& byte : nibbles) byte = std::uint8_t(random_());
      std::vector<std::uint16_t> scales;
      for (int g = 0; g < out * in / 32; ++g) {
        scales.push_back(f32_to_f16(0.1f + 0.01f * std::abs(normal_(random_))));
        scales.push_back(f32_to_f16(normal_(random_) - 0.8f));
      }
      for (int i = 0; i < out * in; ++i) {
        const int group = i / 32, k = i % 32;
        const int q = nibbles[std::size_t(group * 16 + k % 16)] >> (k < 16 ? 0 : 4) & 15;
        const double scale = double(f16_to_f32(scales[std::size_t(2 * group)]));
        const double offset = double(f16_to_f32(scales[std::size_t(2 * group + 1)]));
        m.weights.push_back(scale * q + offset);
        m.raised.push_back(scale * (128 + q) + std::abs(offset - 128 * scale));
      }
      m.codes = to_device<std::uint8_t>(stream_, nibbles, "nibbles");
      m.scales = to_device<std::uint16_t>(stream_, scales, "scales");
    }
    if (form != WeightForm::bfloat16) {
      m.view.weights = m.codes.data();
      m.view.scales = reinterpret_cast<const __half2*>(m.scales.data());
    }
    if (!biased) return m;
    m.bias = floats(std::size_t(out));
    m.device_bias = to_device<float>(stream_, m.bias, "bias");
    m.view.bias = m.device_bias.data();
    return m;
  }
  std::vector<float> floats(std::size_t n) {
    std::vector<float> out(n);
    for (float& value : out) value = normal_(random_);
    return out;
  }

  Stream stream_;
  std::mt19937 random_{23};
  std::normal_distribution<float> normal_;
};

struct Sum {
  double value, bound;
};

/// Row `o` of W·x + bias: float32 sums in any order of inputs that may themselves be off by `inputs` (relative).
Sum product(const Matrix& m, int o, const std::vector<double>& x, double inputs) {
  Sum sum{m.bias.empty() ? 0 : double(m.bias[std::size_t(o)]), 0};
  double size = std::abs(sum.value), moved = 0;
  const int in = m.view.in;
  for (int k = 0; k < in; ++k) {
    const std::size_t at = std::size_t(o * in + k);
    sum.value += m.weights[at] * x[std::size_t(k)];
    size += std::abs(m.raised[at] * x[std::size_t(k)]);
    moved += std::abs(m.weights[at] * x[std::size_t(k)]);
  }
  sum.bound = (in + 4) * kEps * size + inputs * moved;
  return sum;
}

/// weight ∘ x / rms(x); its roundings to bfloat16 and float32 are the bound's.
struct Normed {
  std::vector<double> h;
  double off;
};
Normed normed(const std::vector<float>& x, const std::vector<float>& weight) {
  double squares = 0;
  for (const float v : x) squares += double(v) * double(v);
  Normed out{{}, kBf16 + (double(x.size()) / 2 + 8) * kEps};
  for (std::size_t k = 0; k < x.size(); ++k)
    out.h.push_back(double(weight[k]) * double(x[k]) / std::sqrt(squares / double(x.size()) + double(kEpsilon)));
  return out;
}

TEST_F(DecodeTest, ProjectsUpToThreeMatrices) {
  struct Case {
    WeightForm forms[3];
    int outs[3];
    int count, in;
    int d = 0, rotated = 0;  ///< heads that are rotated, and their outputs
  };
  constexpr WeightForm b = WeightForm::bfloat16, q = WeightForm::q4, e = WeightForm::q8;
  for (const Case& c :
       {Case{{b}, {1}, 1, 64}, Case{{b, b, b}, {40, 15, 7}, 3, 256}, Case{{b, b, b}, {5, 6, 3}, 3, 76},
        Case{{q, q, q}, {33, 16, 17}, 3, 64}, Case{{q, b, q}, {8, 9, 10}, 3, 1056},
        Case{{e, e, e}, {33, 16, 17}, 3, 96}, Case{{e}, {66}, 1, 4128}, Case{{q, q, e}, {32, 16, 16}, 3, 256, 16, 48},
        Case{{b}, {130}, 1, 2096}, Case{{q}, {66}, 1, 4128}, Case{{b, b, b}, {32, 16, 16}, 3, 64, 8, 48},
        Case{{q, b, b}, {40, 20, 20}, 3, 96, 20, 60}, Case{{b, q, q}, {24, 24, 24}, 3, 64, 24, 48}}) {
    std::vector<Matrix> matrices;
    std::vector<DecodeMatrix> views;
    std::size_t outputs = 0;
    for (int i = 0; i < c.count; ++i) {
      matrices.push_back(matrix(c.forms[i], c.outs[i], c.in, i != 1));
      views.push_back(matrices.back().view);
      outputs += std::size_t(c.outs[i]);
    }
    const std::vector<float> x = floats(std::size_t(c.in)), weight = floats(std::size_t(c.in));
    const auto device_x = to_device<float>(stream_, x, "x"), device_weight = to_device<float>(stream_, weight, "norm");
    const Normed h = normed(x, weight);
    std::vector<double> expected, bounds;
    for (const Matrix& m : matrices)
      for (int o = 0; o < m.view.out; ++o) {
        const Sum sum = product(m, o, h.h, h.off);
        expected.push_back(sum.value);
        bounds.push_back(sum.bound);
      }
    std::vector<float2> turns;
    for (int i = 0; i < c.d / 2; ++i) turns.push_back({std::cos(float(i + 1)) * 1.25f, std::sin(float(i + 1)) * 1.25f});
    for (std::size_t o = 0; o < std::size_t(c.rotated); o += 2) {
      const float2 t = turns[o % std::size_t(c.d) / 2];
      const double one = expected[o], other = expected[o + 1], off_a = bounds[o], off_b = bounds[o + 1];
      const double cosine = double(t.x), sine = double(t.y);
      expected[o] = one * cosine - other * sine;
      expected[o + 1] = other * cosine + one * sine;
      const auto bound = [&](double by_a, double by_b) {
        const double moved = std::abs(by_a) * off_a + std::abs(by_b) * off_b;
        return moved + 2 * kEps * (std::abs(by_a * one) + std::abs(by_b * other) + moved);
      };
      bounds[o] = bound(cosine, sine);
      bounds[o + 1] = bound(sine, cosine);
    }
    const auto device_turns = to_device<float2>(stream_, turns, "angles");
    std::vector<float> first;
    for_each_schedule([&] {
      const DeviceArray<float> y(stream_, outputs, "y");
      cuda::project(stream_, views, {device_x.data(), device_weight.data(), kEpsilon},
                    {device_turns.data(), c.d, c.rotated}, y.data());
      const std::vector<float> found = to_host(stream_, y.data(), y.size());
      expect_close(found, expected, bounds);
      if (first.empty()) first = found;
      EXPECT_EQ(found, first);
    });
  }
}

TEST_F(DecodeTest, AddsAProduct) {
  for (const WeightForm form : {WeightForm::bfloat16, WeightForm::q8, WeightForm::q4})
    for (const int in : {32, 96, 608, 8000}) {
      const Matrix m = matrix(form, 37, in, in != 96);
      std::vector<bf16> x;
      std::vector<double> exact;
      for (int k = 0; k < in; ++k) x.push_back(bf16(normal_(random_)));
      for (const bf16 one : x) exact.push_back(double(float(one)));
      const std::vector<float> before = floats(37);
      const auto device_x = to_device<bf16>(stream_, x, "x");
      const auto y = to_device<float>(stream_, before, "y");
      cuda::add_product(stream_, m.view, device_x.data(), y.data());
      std::vector<double> expected, bounds;
      for (int o = 0; o < 37; ++o) {
        const Sum sum = product(m, o, exact, 0);
        expected.push_back(double(before[std::size_t(o)]) + sum.value);
        bounds.push_back(sum.bound + kEps * std::abs(expected.back()));
      }
      expect_close(to_host(stream_, y.data(), y.size()), expected, bounds);
    }
}

TEST_F(DecodeTest, GatesUp) {
  for (const WeightForm form : {WeightForm::bfloat16, WeightForm::q8, WeightForm::q4})
    for (const int in : {32, 160, 1088}) {
      const Matrix gate = matrix(form, 45, in, true), up = matrix(form, 45, in, false);
      const std::vector<float> x = floats(std::size_t(in));
      std::vector<float> weight = floats(std::size_t(in));
      for (float& w : weight) w *= 0.1f;
      const auto device_x = to_device<float>(stream_, x, "x"),
                 device_weight = to_device<float>(stream_, weight, "norm");
      const Normed h = normed(x, weight);
      std::vector<double> expected, bounds;
      for (int o = 0; o < 45; ++o) {
        const Sum g = product(gate, o, h.h, h.off), u = product(up, o, h.h, h.off);
        const double silu = g.value / (1 + std::exp(-g.value));
        expected.push_back(silu * u.value);
        const double silu_bound =
            1.1 * g.bound + 2 * kEps * (6 + 1.2 * std::abs(g.value)) * std::abs(silu);  // |silu'| < 1.1
        const double off = silu_bound * (std::abs(u.value) + u.bound) + std::abs(silu) * u.bound;
        bounds.push_back(off + kBf16 * (std::abs(expected.back()) + off));
      }
      const DeviceArray<bf16> out(stream_, 45, "out");
      cuda::gate_up(stream_, gate.view, up.view, {device_x.data(), device_weight.data(), kEpsilon}, out.data());
      std::vector<float> found;
      for (const bf16 one : to_host(stream_, out.data(), out.size())) found.push_back(float(one));
      expect_close(found, expected, bounds);
    }
}

TEST_F(DecodeTest, EmbedsATokenAndItsPosition) {
  for (const auto& [width, d] : {std::pair{300, 80}, {12, 128}}) {
    std::vector<bf16> table;
    for (int i = 0; i < 7 * width; ++i) table.push_back(bf16(normal_(random_)));
    std::vector<double> inv_freq;
    for (int i = 0; i < d / 2; ++i) inv_freq.push_back(std::pow(10000.0, -2.0 * i / d));
    const auto device_table = to_device<bf16>(stream_, table, "table");
    const auto device_inv_freq = to_device<double>(stream_, inv_freq, "frequencies");
    const std::vector<StepState> states = {{5, 100003, 1}};
    const auto state = to_device<StepState>(stream_, states, "state");
    const DeviceArray<float> x(stream_, std::size_t(width), "x");
    const DeviceArray<float2> angles(stream_, std::size_t(d / 2), "angles");
    cuda::embed_token(stream_, device_table.data(), state.data(), width, device_inv_freq.data(), d, 1.25f, x.data(),
                      angles.data());
    const std::vector<float> found = to_host(stream_, x.data(), x.size());
    for (int i = 0; i < width; ++i) EXPECT_EQ(found[std::size_t(i)], float(table[std::size_t(5 * width + i)]));
    const std::vector<float2> turns = to_host(stream_, angles.data(), angles.size());
    for (std::size_t i = 0; i < turns.size(); ++i) {
      const double angle = 100003 * inv_freq[i];
      expect_close(turns[i].x, 1.25 * std::cos(angle), 2.5 * kEps);
      expect_close(turns[i].y, 1.25 * std::sin(angle), 2.5 * kEps);
    }
  }
}

/// What arg_max() says and leaves in the state {3, 10, 4}.
std::pair<std::int32_t, StepState> best_of(const Stream& stream, const std::vector<float>& logits,
                                           const std::vector<std::int32_t>& banned) {
  const std::vector<StepState> states = {{3, 10, 4}};
  const auto state = to_device<StepState>(stream, states, "state");
  const auto device_logits = to_device<float>(stream, logits, "logits");
  const auto device_banned = to_device<std::int32_t>(stream, banned, "banned");
  const DeviceArray<std::int32_t> best(stream, 1, "best");
  const cuda::DeviceBuffer work(stream, cuda::arg_max_bytes(int(logits.size())), "work");
  cuda::arg_max(stream, device_logits.data(), int(logits.size()), device_banned.data(), int(banned.size()), work.data(),
                state.data(), best.data());
  return {to_host(stream, best.data(), 1)[0], to_host(stream, state.data(), 1)[0]};
}

TEST_F(DecodeTest, ArgMax) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  for (const int vocab : {1, 5, 255, 4096, 4097, 20011}) {
    std::vector<float> logits = floats(std::size_t(vocab));
    const auto expect = [&](std::int32_t id, const std::vector<std::int32_t>& banned) {
      for_each_schedule([&] {
        const auto [best, state] = best_of(stream_, logits, banned);
        EXPECT_EQ(best, id) << vocab << " logits";
        EXPECT_EQ(state, (id < 0 ? StepState{3, 10, 4} : StepState{id, 11, 5}));
      });
    };
    const int at = vocab * 2 / 3;
    logits[std::size_t(at)] = 50;
    expect(at, {});
    logits.back() = 50;
    expect(at, {});  // ties: the lower id
    if (vocab > 4) {
      expect(vocab - 1, {0, at});
      logits.back() = kNan;
      expect(-1, {});
      expect(-1, {vocab - 1});  // a broken model, whatever is banned
      logits.back() = kInf;
      expect(-1, {});
      logits.back() = -kInf;
      expect(at, {});
    }
    std::fill(logits.begin(), logits.end(), -kInf);
    expect(-1, {});
    logits[0] = -7;
    expect(0, {});
    expect(-1, {0});
  }
}

}  // namespace
}  // namespace fastkv::test
