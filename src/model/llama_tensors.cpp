// Finds the weights of architecture `llama` by name and checks their shapes and types.
#include <set>
#include <string>

#include "core/check.hpp"
#include "model/llama.hpp"

namespace fastkv {
namespace {

std::string supported_types() {
  std::string names;
  for (const auto& type : kDTypes) {
    if (!names.empty()) names += ", ";
    names += type.name;
  }
  return names;
}

/// "{4096, 32000}", without trailing ones, in the file's order (inputs first).
std::string shape(const GgufTensor& tensor) {
  std::string text;
  for (std::uint32_t d = 0; d < tensor.n_dims; ++d) text += concat(d == 0 ? "" : ", ", tensor.dims[d]);
  return concat("{", text, "}");
}

/// Hands out views by name and remembers which tensors of the file were asked for.
class TensorReader {
 public:
  explicit TensorReader(const GgufFile& file) : file_(file) {}

  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  /// A matrix {cols, rows} in the file's order, of any supported type.
  TensorView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) {
    const auto& tensor = find(name);
    const bool fits = tensor.dims[0] == std::uint64_t(cols) && tensor.dims[1] == std::uint64_t(rows) &&
                      tensor.dims[2] == 1 && tensor.dims[3] == 1;
    check(fits, ErrorCode::bad_file, where(name), "expected shape {", cols, ", ", rows, "}, found ", shape(tensor));
    const auto type = dtype_from_ggml(tensor.ggml_type);
    if (!type) {
      fail(ErrorCode::unsupported, where(name), "tensor type ", type_text(tensor),
           " is not supported; supported: ", supported_types());
    }
    return {name, *type, rows, cols, tensor.data.data()};
  }

  /// A vector of `n` floats. Quantisers leave vectors alone: every file has them in F32.
  TensorView vector(const std::string& name, std::int64_t n) {
    const auto& tensor = find(name);
    const bool fits =
        tensor.dims[0] == std::uint64_t(n) && tensor.dims[1] == 1 && tensor.dims[2] == 1 && tensor.dims[3] == 1;
    check(fits, ErrorCode::bad_file, where(name), "expected shape {", n, "}, found ", shape(tensor));
    check(dtype_from_ggml(tensor.ggml_type) == DType::f32, ErrorCode::unsupported, where(name), "tensor type ",
          type_text(tensor), " is not supported for a vector; supported: F32");
    return {name, DType::f32, 1, n, tensor.data.data()};
  }

  TensorView optional_vector(const std::string& name, std::int64_t n) {
    return has(name) ? vector(name, n) : TensorView{};
  }

  void ignore(std::string_view name) { used_.insert(name); }

  /// A tensor nobody asked for would silently be left out of the computation.
  void refuse_unused() const {
    for (const auto& tensor : file_.tensors()) {
      check(used_.contains(tensor.name), ErrorCode::unsupported, file_.path(), ": tensor ", quoted(tensor.name),
            " is no part of architecture llama as supported");
    }
  }

 private:
  const GgufTensor& find(const std::string& name) {
    const auto* tensor = file_.find_tensor(name);
    check(tensor != nullptr, ErrorCode::bad_file, file_.path(), ": expected the tensor '", name, "', found none");
    used_.insert(tensor->name);
    return *tensor;
  }

  std::string where(const std::string& name) const { return concat(file_.path(), ": ", name, ": "); }

  static std::string type_text(const GgufTensor& tensor) {
    const auto text = ggml_type_name(tensor.ggml_type);
    return text == "?" ? concat("with id ", tensor.ggml_type) : std::string(text);
  }

  const GgufFile& file_;
  std::set<std::string_view> used_;
};

/// Rows [begin, begin + rows) of `view`.
TensorView row_slice(const TensorView& view, std::int64_t begin, std::int64_t rows) {
  auto slice = view;
  slice.rows = rows;
  slice.data += std::size_t(begin) * row_bytes(view.type, std::size_t(view.cols));
  return slice;
}

/// Entries [begin, begin + n) of the float vector `view`.
TensorView vector_slice(const TensorView& view, std::int64_t begin, std::int64_t n) {
  auto slice = view;
  slice.cols = n;
  slice.data += std::size_t(begin) * sizeof(float);
  return slice;
}

void read_attention(TensorReader& reader, const ModelConfig& config, const std::string& block, LayerTensors& layer) {
  const std::int64_t d = config.n_embd, q = config.q_dim(), kv = config.kv_dim();
  if (reader.has(block + "attn_qkv.weight")) {
    const auto fused = reader.matrix(block + "attn_qkv.weight", q + 2 * kv, d);
    layer.q = row_slice(fused, 0, q);
    layer.k = row_slice(fused, q, kv);
    layer.v = row_slice(fused, q + kv, kv);
    if (const auto bias = reader.optional_vector(block + "attn_qkv.bias", q + 2 * kv)) {
      layer.q_bias = vector_slice(bias, 0, q);
      layer.k_bias = vector_slice(bias, q, kv);
      layer.v_bias = vector_slice(bias, q + kv, kv);
    }
  } else {
    layer.q = reader.matrix(block + "attn_q.weight", q, d);
    layer.k = reader.matrix(block + "attn_k.weight", kv, d);
    layer.v = reader.matrix(block + "attn_v.weight", kv, d);
    layer.q_bias = reader.optional_vector(block + "attn_q.bias", q);
    layer.k_bias = reader.optional_vector(block + "attn_k.bias", kv);
    layer.v_bias = reader.optional_vector(block + "attn_v.bias", kv);
  }
  layer.o = reader.matrix(block + "attn_output.weight", d, q);
  layer.o_bias = reader.optional_vector(block + "attn_output.bias", d);
}

LayerTensors read_layer(TensorReader& reader, const ModelConfig& config, int index) {
  const auto block = concat("blk.", index, ".");
  const std::int64_t d = config.n_embd, ff = config.n_ff;
  LayerTensors layer;
  layer.attn_norm = reader.vector(block + "attn_norm.weight", d);
  read_attention(reader, config, block, layer);
  layer.ffn_norm = reader.vector(block + "ffn_norm.weight", d);
  layer.gate = reader.matrix(block + "ffn_gate.weight", ff, d);
  layer.up = reader.matrix(block + "ffn_up.weight", ff, d);
  layer.down = reader.matrix(block + "ffn_down.weight", d, ff);
  layer.gate_bias = reader.optional_vector(block + "ffn_gate.bias", ff);
  layer.up_bias = reader.optional_vector(block + "ffn_up.bias", ff);
  layer.down_bias = reader.optional_vector(block + "ffn_down.bias", d);
  return layer;
}

}  // namespace

ModelTensors read_tensors(const GgufFile& file, const ModelConfig& config) {
  TensorReader reader(file);
  ModelTensors tensors;
  tensors.token_embd = reader.matrix("token_embd.weight", config.n_vocab, config.n_embd);
  for (int l = 0; l < config.n_layer; ++l) tensors.layers.push_back(read_layer(reader, config, l));
  tensors.output_norm = reader.vector("output_norm.weight", config.n_embd);
  tensors.tied = !reader.has("output.weight");
  tensors.output = tensors.tied ? tensors.token_embd : reader.matrix("output.weight", config.n_vocab, config.n_embd);
  tensors.output_bias = reader.optional_vector("output.bias", config.n_vocab);
  reader.ignore("rope_freqs.weight");  // part of the configuration
  reader.refuse_unused();
  return tensors;
}

}  // namespace fastkv
