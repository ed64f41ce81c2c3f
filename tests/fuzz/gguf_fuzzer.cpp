// libFuzzer target of the GGUF reader: any bytes give a model, a vocabulary or one line of error, nothing else.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/quant_blocks.hpp"
#include "fastkv/error.hpp"
#include "model/llama.hpp"
#include "model/vocab.hpp"

namespace {

/// Runs `body`; an Error must be one printable line.
template <class Body>
void attempt(const Body& body) {
  try {
    body();
  } catch (const fastkv::Error& error) {
    if (std::strlen(error.what()) == 0 || std::strchr(error.what(), '\n') != nullptr) std::abort();
  }
}

/// Reads the first and the last row, so that a view beyond the file is a report of AddressSanitizer.
void touch(const fastkv::TensorView& view) {
  if (!view) return;
  std::vector<float> row(static_cast<std::size_t>(view.cols));
  const auto stride = fastkv::row_bytes(view.type, row.size());
  fastkv::dequantize_row(view.type, view.data, row.data(), row.size());
  fastkv::dequantize_row(view.type, view.data + static_cast<std::size_t>(view.rows - 1) * stride, row.data(),
                         row.size());
}

void touch_all(const fastkv::ModelTensors& tensors) {
  for (const auto* view : {&tensors.token_embd, &tensors.output_norm, &tensors.output, &tensors.output_bias})
    touch(*view);
  for (const auto& layer : tensors.layers) {
    for (const auto* view : {&layer.attn_norm, &layer.q, &layer.k, &layer.v, &layer.o, &layer.q_bias, &layer.k_bias,
                             &layer.v_bias, &layer.o_bias, &layer.ffn_norm, &layer.gate, &layer.up, &layer.down,
                             &layer.gate_bias, &layer.up_bias, &layer.down_bias}) {
      touch(*view);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt([&] {
    const auto file = fastkv::GgufFile::from_memory({reinterpret_cast<const std::byte*>(data), size}, "input");
    attempt([&] { fastkv::read_vocab(file); });
    const auto config = fastkv::read_config(file);
    touch_all(fastkv::read_tensors(file, config));
  });
  return 0;
}
