// The layout of all weights in one piece of device memory.
#include "backend/cuda/weights.hpp"

#include <algorithm>
#include <array>

#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;
constexpr std::int64_t kGroup = 32;  // weights

// What decode reads of a tensor: integers that a form holds exactly, whose scales round to float16 at most.
WeightForm form_of(const TensorView& t) {
  switch (t.type) {
    case DType::q4_0:
    case DType::q4_1:
    case DType::q4_k:
      return WeightForm::q4;
    case DType::q5_0:
    case DType::q8_0:
    case DType::q3_k:
    case DType::q6_k:
    case DType::iq4_nl:
    case DType::iq4_xs:
      return WeightForm::q8;
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::q5_1:  // five bits and an offset
    case DType::q5_k:
      break;
  }
  return WeightForm::bfloat16;
}
std::int64_t size(const TensorView& t) { return t.rows * t.cols; }

// A tensor of a linear layer and where decode's description of it goes.
struct Part {
  const TensorView& w;
  const TensorView& bias;
  DecodeMatrix& decode;
};

class Layout {
 public:
  Layout(std::byte* base, bool keep_codes, std::vector<WeightCopy>& copies)
      : base_(base), keep_codes_(keep_codes), copies_(copies) {}

  Weights place(const ModelTensors& t) {
    Weights w;
    auto* embedding = take<bf16>(size(t.token_embd));
    w.token_embd = embedding;
    copy(WeightCopy::Form::bfloat16, t.token_embd, embedding,
         !t.tied || kept_form(t.token_embd) == WeightForm::bfloat16);
    w.output_norm = floats(t.output_norm, true);
    const Part output{t.output, t.output_bias, w.decode_output};
    w.output = t.tied ? linear({&output, 1}, embedding) : linear({&output, 1});
    for (const LayerTensors& l : t.layers) {
      LayerWeights& layer = w.layers.emplace_back();
      layer.attn_norm = floats(l.attn_norm, true);
      layer.q = linear(std::array{Part{l.q, l.q_bias, layer.decode_qkv[0]}});
      layer.kv = linear(std::array{Part{l.k, l.k_bias, layer.decode_qkv[1]}, Part{l.v, l.v_bias, layer.decode_qkv[2]}});
      layer.o = linear(std::array{Part{l.o, l.o_bias, layer.decode_o}});
      layer.ffn_norm = floats(l.ffn_norm, true);
      // decode reads rows of both together
      const bool same_form = form_of(l.gate) == form_of(l.up);
      layer.gate_up =
          linear(std::array{Part{l.gate, l.gate_bias, layer.decode_gate}, Part{l.up, l.up_bias, layer.decode_up}},
                 nullptr, same_form);
      layer.down = linear(std::array{Part{l.down, l.down_bias, layer.decode_down}});
    }
    w.bytes = std::size_t(used_);
    w.decode_bytes = decode_bytes_;
    w.narrowest = narrowest_;
    return w;
  }

 private:
  template <class T>
  T* take(std::int64_t count) {
    auto* at = reinterpret_cast<T*>(std::uintptr_t(base_) + std::uintptr_t(used_));
    used_ += round_up(count * std::int64_t(sizeof(T)), kAlignment);
    return at;
  }
  WeightForm kept_form(const TensorView& t) const { return keep_codes_ ? form_of(t) : WeightForm::bfloat16; }
  void copy(WeightCopy::Form form, const TensorView& t, void* to, bool last) {
    copies_.push_back({form, t, to, nullptr, 0, last});
  }
  const float* floats(const TensorView& t, bool last) {
    if (!t) return nullptr;
    auto* to = take<float>(size(t));
    copy(WeightCopy::Form::float32, t, to, last);
    return to;
  }

  /// Matrices over the same inputs, rows after one another; `placed`: they (one) lie there already.
  Linear linear(std::span<const Part> parts, bf16* placed = nullptr, bool may_be_codes = true) {
    Linear out;
    out.in = parts[0].w.cols;
    bool biased = false;
    for (const Part& part : parts) {
      out.out += part.w.rows;
      biased = biased || part.bias;
    }
    bf16* at = placed ? placed : take<bf16>(out.out * out.in);
    out.w = at;
    for (const Part& part : parts) {
      const WeightForm form = may_be_codes ? kept_form(part.w) : WeightForm::bfloat16;
      if (!placed) copy(WeightCopy::Form::bfloat16, part.w, at, form == WeightForm::bfloat16);
      describe(part, at, form);
      at += size(part.w);
    }
    if (!biased) return out;
    auto* wide = take<float>(out.out);
    auto* narrow = take<bf16>(out.out);
    out.float_bias = wide;
    out.bias = narrow;
    for (const Part& part : parts) {
      part.decode.bias = wide;
      bias(part, WeightCopy::Form::float32, wide, false);
      bias(part, WeightCopy::Form::bfloat16, narrow, true);
      wide += part.w.rows;
      narrow += part.w.rows;
    }
    return out;
  }

  /// A part's bias, or zeros beside another part's.
  template <class T>
  void bias(const Part& part, WeightCopy::Form form, T* to, bool last) {
    if (part.bias)
      copy(form, part.bias, to, last);
    else
      copies_.push_back({WeightCopy::Form::zeros, {}, to, nullptr, std::size_t(part.w.rows) * sizeof(T), false});
  }

  void describe(const Part& part, const bf16* as_bf16, WeightForm form) {
    part.decode = {form, as_bf16, nullptr, nullptr, int(part.w.rows), int(part.w.cols)};
    decode_bytes_ += std::size_t(size(part.w)) * std::size_t(group_bytes(form)) / kGroup;
    narrowest_ = std::max(narrowest_, form);
    if (form == WeightForm::bfloat16) return;
    auto* codes = take<std::byte>(size(part.w) / kGroup * code_bytes(form));
    auto* scales = take<__half2>(size(part.w) / kGroup);
    part.decode.weights = codes;
    part.decode.scales = scales;
    copies_.push_back({WeightCopy::Form::codes, part.w, codes, scales, 0, true, form});
  }

  std::byte* base_;
  bool keep_codes_;
  std::vector<WeightCopy>& copies_;
  std::int64_t used_ = 0;
  std::size_t decode_bytes_ = 0;
  WeightForm narrowest_ = WeightForm::bfloat16;
};

}  // namespace

Weights place_weights(const ModelTensors& tensors, bool keep_codes, std::byte* base, std::vector<WeightCopy>& copies) {
  return Layout(base, keep_codes, copies).place(tensors);
}

}  // namespace fastkv::cuda
