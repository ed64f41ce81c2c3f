// Assembles GGUF files and reads them with everything the library has.
#include "model/raw_gguf.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/dtype.hpp"
#include "fastkv/error.hpp"
#include "model/llama.hpp"
#include "model/vocab.hpp"

namespace fastkv::test {
namespace {

template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
std::string array(std::uint32_t type, const std::vector<T>& values) {
  std::string out = raw32(9) + raw32(type) + raw64(values.size());
  for (const auto& value : values) {
    if constexpr (std::is_same_v<T, std::string>) {
      out += raw_text(value);
    } else {
      out += raw(value);
    }
  }
  return out;
}

/// Any value of F32 data: positive, small, different along the file.
std::string pattern(const RawTensor& tensor, std::uint64_t bytes) {
  std::string out;
  if (tensor.type != 0) return std::string(bytes, '\x11');
  for (std::uint64_t i = 0; i < bytes / 4; ++i) out += raw(float(i % 7 + 1) / 8);
  return out;
}

}  // namespace

std::string raw32(std::uint32_t value) { return raw(value); }
std::string raw64(std::uint64_t value) { return raw(value); }
std::string raw_text(const std::string& value) { return raw64(value.size()) + value; }
std::string u32(std::uint32_t value) { return raw32(4) + raw(value); }
std::string i32(std::int32_t value) { return raw32(5) + raw(value); }
std::string f32(float value) { return raw32(6) + raw(value); }
std::string boolean(bool value) { return raw32(7) + std::string(1, char(value)); }
std::string text(const std::string& value) { return raw32(8) + raw_text(value); }
std::string u64(std::uint64_t value) { return raw32(10) + raw(value); }
std::string f64(double value) { return raw32(12) + raw(value); }
std::string u32s(const std::vector<std::uint32_t>& values) { return array(4, values); }
std::string f32s(const std::vector<float>& values) { return array(6, values); }
std::string texts(const std::vector<std::string>& values) { return array(8, values); }

RawGguf& RawGguf::set(const std::string& key, const std::string& value) {
  for (auto& [name, old] : keys) {
    if (name == key) {
      old = value;
      return *this;
    }
  }
  keys.emplace_back(key, value);
  return *this;
}

RawGguf& RawGguf::erase_key(const std::string& key) {
  std::erase_if(keys, [&](const auto& entry) { return entry.first == key; });
  return *this;
}

RawGguf& RawGguf::erase_tensor(const std::string& name) {
  std::erase_if(tensors, [&](const auto& entry) { return entry.name == name; });
  return *this;
}

RawTensor& RawGguf::tensor(const std::string& name) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const auto& entry) { return entry.name == name; });
}

std::string RawGguf::bytes() const {
  std::string out =
      magic + raw32(version) + raw64(n_tensors.value_or(tensors.size())) + raw64(n_keys.value_or(keys.size()));
  for (const auto& [key, value] : keys) out += raw_text(key) + value;
  std::string data;
  for (const auto& entry : tensors) {
    out += raw_text(entry.name) + raw32(entry.n_dims.value_or(std::uint32_t(entry.dims.size())));
    std::uint64_t weights = 1;
    for (const auto dim : entry.dims) {
      out += raw64(dim);
      weights *= dim;
    }
    out += raw32(entry.type) + raw64(entry.offset.value_or(data.size()));
    const auto type = dtype_from_ggml(entry.type);
    if (!entry.offset && type && weights < (1u << 20)) {
      data += pattern(entry, weights / info(*type).block_weights * info(*type).block_bytes);
      data.resize((data.size() + alignment - 1) / alignment * alignment);
    }
  }
  if (!tensors.empty()) out.resize((out.size() + alignment - 1) / alignment * alignment);
  return out + data + tail;
}

RawGguf small_model() {
  RawGguf file;
  file.set("general.architecture", text("llama"))
      .set("general.name", text("small"))
      .set("llama.block_count", u32(2))
      .set("llama.context_length", u32(512))
      .set("llama.embedding_length", u32(32))
      .set("llama.feed_forward_length", u32(64))
      .set("llama.attention.head_count", u32(4))
      .set("llama.attention.head_count_kv", u32(2))
      .set("llama.attention.layer_norm_rms_epsilon", f32(1e-5f))
      .set("tokenizer.ggml.model", text("llama"))
      .set("tokenizer.ggml.tokens", texts({"<unk>", "<s>", "</s>", "a", "b", "ab"}))
      .set("tokenizer.ggml.token_type", u32s({2, 3, 3, 1, 1, 1}))
      .set("tokenizer.ggml.scores", f32s({0, 0, 0, -1, -2, -3}));
  file.tensors.push_back({"token_embd.weight", 0, {32, 6}, {}, {}});
  for (const std::string block : {"blk.0.", "blk.1."}) {
    const std::pair<const char*, std::vector<std::uint64_t>> kParts[] = {
        {"attn_norm", {32}},    {"attn_q", {32, 32}},      {"attn_k", {32, 16}},
        {"attn_v", {32, 16}},   {"attn_output", {32, 32}}, {"ffn_norm", {32}},
        {"ffn_gate", {32, 64}}, {"ffn_up", {32, 64}},      {"ffn_down", {64, 32}},
    };
    for (const auto& [name, dims] : kParts) file.tensors.push_back({block + name + ".weight", 0, dims, {}, {}});
  }
  file.tensors.push_back({"output_norm.weight", 0, {32}, {}, {}});
  return file;
}

std::span<const std::byte> as_bytes(const std::string& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

testing::AssertionResult mentions(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    if (message.find(part) == std::string::npos) {
      return testing::AssertionFailure() << "expected \"" << part << "\" in \"" << message << "\"";
    }
  }
  return testing::AssertionSuccess();
}

std::string read_error(const std::string& bytes, int* code) {
  // Exactly as many bytes on the heap, so that AddressSanitizer sees the smallest overrun.
  const std::vector<std::byte> copy(as_bytes(bytes).begin(), as_bytes(bytes).end());
  try {
    const auto file = GgufFile::from_memory(copy, "file");
    read_vocab(file);
    read_tensors(file, read_config(file));
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_FALSE(message.empty());
    if (code != nullptr) *code = int(error.code());
    return message;
  }
  return "";
}

}  // namespace fastkv::test
