// Architecture llama: what is read from a file, and what is refused, by name.
#include "model/llama.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fastkv/error.hpp"
#include "model/raw_gguf.hpp"

namespace fastkv {
namespace {

using namespace test;

constexpr int kUnsupported = int(ErrorCode::unsupported);
constexpr int kBadFile = int(ErrorCode::bad_file);

/// The configuration of `raw`, whose bytes need not outlive it.
ModelConfig config_of(const RawGguf& raw) {
  const auto bytes = raw.bytes();
  return read_config(GgufFile::from_memory(as_bytes(bytes), "file"));
}

TEST(LlamaConfig, ReadsNumbersAndDefaults) {
  const auto config = config_of(small_model().erase_key("llama.attention.head_count_kv"));
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.name, "small");
  EXPECT_EQ(config.n_layer, 2);
  EXPECT_EQ(config.n_embd, 32);
  EXPECT_EQ(config.n_ff, 64);
  EXPECT_EQ(config.n_head, 4);
  EXPECT_EQ(config.n_head_kv, 4);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.n_vocab, 6);
  EXPECT_EQ(config.n_ctx_train, 512);
  EXPECT_EQ(config.rms_eps, 1e-5f);
  EXPECT_EQ(config.attention_scale, 1.0f / std::sqrt(8.0f));
  EXPECT_EQ(config.rope_base, 10000.0);
  EXPECT_EQ(config.rope_magnitude, 1.0f);
  EXPECT_FALSE(config.rope_scaled);
  ASSERT_EQ(config.rope_inv_freq.size(), 4u);
  EXPECT_DOUBLE_EQ(config.rope_inv_freq[0], 1.0);
  EXPECT_DOUBLE_EQ(config.rope_inv_freq[3], 1e-3);
}

TEST(LlamaConfig, HonoursOptionalKeys) {
  auto raw = small_model().set("llama.attention.key_length", u32(16)).set("llama.attention.value_length", u32(16));
  raw.set("llama.rope.dimension_count", u32(16))
      .set("llama.rope.freq_base", f32(5e5f))
      .set("llama.attention.scale", f32(0.25f));
  raw.set("llama.attention.head_count_kv", u32s({2, 2})).set("llama.expert_count", u32(0));
  const auto config = config_of(raw);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.q_dim(), 64);
  EXPECT_EQ(config.n_head_kv, 2);
  EXPECT_EQ(config.attention_scale, 0.25f);
  EXPECT_DOUBLE_EQ(config.rope_inv_freq[1], std::pow(5e5, -2.0 / 16));
}

TEST(LlamaConfig, MissingKeysAreNamed) {
  for (const char* key :
       {"general.architecture", "llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon", "llama.context_length",
        "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.scores"}) {
    int code = 0;
    EXPECT_TRUE(mentions(read_error(small_model().erase_key(key), &code), {key})) << key;
    EXPECT_EQ(code, kBadFile) << key;
  }
}

TEST(LlamaConfig, RefusesWhatItDoesNotRun) {
  const auto refused = [](const std::string& key, const std::string& value, std::initializer_list<const char*> parts) {
    int code = 0;
    EXPECT_TRUE(mentions(read_error(small_model().set(key, value), &code), parts));
    EXPECT_EQ(code, kUnsupported) << key;
  };
  refused("general.architecture", text("qwen2"), {"unsupported architecture 'qwen2'; supported: llama"});
  refused("general.type", text("adapter"), {"general.type", "'adapter'"});
  refused("llama.expert_count", u32(8), {"llama.expert_count", "8 experts"});
  refused("llama.attention.head_count_kv", u32s({2, 4}), {"head_count_kv", "2 and 4"});
  refused("llama.attention.value_length", u32(16), {"value_length", "expected the key length 8, found 16"});
  refused("llama.attention.key_length", u32(12), {"key_length", "multiple of 8", "found 12"});
  refused("llama.rope.dimension_count", u32(4), {"rope.dimension_count", "expected the head size 8, found 4"});
  refused("llama.rope.scaling.type", text("longrope"), {"'longrope'", "none, linear, yarn"});
}

TEST(LlamaConfig, RefusesAbsurdNumbers) {
  const auto bad = [](const std::string& key, const std::string& value, std::initializer_list<const char*> parts) {
    int code = 0;
    EXPECT_TRUE(mentions(read_error(small_model().set(key, value), &code), parts)) << key;
    EXPECT_EQ(code, kBadFile) << key;
  };
  for (const std::string key : {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
                                "llama.attention.head_count", "llama.attention.head_count_kv", "llama.context_length",
                                "llama.attention.key_length", "llama.rope.dimension_count"}) {
    bad(key, u32(0), {key.c_str(), "found 0"});
    bad(key, i32(-1), {key.c_str(), "found -1"});
    bad(key, u32(~0u), {key.c_str(), "found 4294967295"});
    bad(key, f32(4), {key.c_str(), "found f32"});
    bad(key, text("4"), {key.c_str(), "found a string"});
  }
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float value : {nan, infinity, -1.0f, 0.0f, 1.0f}) {
    bad("llama.attention.layer_norm_rms_epsilon", f32(value), {"layer_norm_rms_epsilon"});
  }
  for (const float value : {nan, infinity, -1.0f}) {
    bad("llama.rope.freq_base", f32(value), {"rope.freq_base"});
    bad("llama.rope.scaling.factor", f32(value), {"rope.scaling.factor"});
    bad("llama.attention.scale", f32(value), {"attention.scale"});
  }
  bad("llama.attention.head_count_kv", u32(3), {"head_count_kv", "divisor of the head count 4, found 3"});
  bad("llama.attention.head_count_kv", u32s({2, 2, 2}), {"one value per layer, 2, found 3"});
  bad("llama.attention.head_count", u32(6), {"divisor of the embedding length 32, found 6"});
  bad("tokenizer.ggml.token_type", u32s({1, 1, 1, 1, 1}), {"token_type", "6, found 5"});
}

TEST(LlamaConfig, TokensAndEmbeddingsAgree) {
  auto raw = small_model().set("tokenizer.ggml.tokens", texts({"a", "b"}));
  raw.set("tokenizer.ggml.scores", f32s({0, 0})).set("tokenizer.ggml.token_type", u32s({1, 1}));
  EXPECT_TRUE(mentions(read_error(raw), {"token_embd.weight", "6, found 2"}));
}

TEST(LlamaRope, LinearScaling) {
  const auto plain = config_of(small_model()).rope_inv_freq;
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    const auto config = config_of(small_model().set(key, f32(4)));
    for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_DOUBLE_EQ(config.rope_inv_freq[i], plain[i] / 4);
    EXPECT_TRUE(config.rope_scaled);
    EXPECT_EQ(config.rope_magnitude, 1.0f);
  }
  auto raw = small_model().set("llama.rope.scaling.factor", f32(4)).set("llama.rope.scaling.type", text("none"));
  EXPECT_EQ(config_of(raw).rope_inv_freq, plain);
  EXPECT_FALSE(config_of(raw).rope_scaled);
  EXPECT_EQ(config_of(small_model().set("llama.rope.scaling.factor", f32(0))).rope_inv_freq, plain);
}

/// Values of the published formula (spec/models.md 4) for d = 64, base 10000, factor 4, original context 4096, computed
/// apart from this code: the ramp lies between pairs 10 and 23.
TEST(LlamaRope, Yarn) {
  auto raw = small_model().set("llama.attention.key_length", u32(64)).set("llama.attention.value_length", u32(64));
  raw.set("llama.rope.scaling.type", text("yarn")).set("llama.rope.scaling.factor", f32(4));
  raw.set("llama.rope.scaling.original_context_length", u32(4096)).set("llama.context_length", u32(16384));
  const auto config = config_of(raw);
  const std::pair<int, double> kExpected[] = {{0, 1.0},
                                              {5, 0.23713737056616552},
                                              {10, 0.05623413251903491},
                                              {11, 0.039736785900001015},
                                              {15, 0.009488517882700576},
                                              {20, 0.0013378867023789297},
                                              {23, 0.000333380358040831},
                                              {31, 3.33380358040831e-05}};
  for (const auto& [i, value] : kExpected) EXPECT_NEAR(config.rope_inv_freq[std::size_t(i)], value, 1e-12 * value) << i;
  EXPECT_FLOAT_EQ(config.rope_magnitude, 1.138629436111989f);
  EXPECT_TRUE(config.rope_scaled);
  // A log multiplier of 1 cancels the magnitude; attn_factor multiplies it.
  raw.set("llama.rope.scaling.yarn_log_multiplier", f32(1)).set("llama.rope.scaling.attn_factor", f32(0.5f));
  EXPECT_FLOAT_EQ(config_of(raw).rope_magnitude, 0.5f);
}

TEST(LlamaRope, FrequencyFactorsDivide) {
  auto raw = small_model();
  raw.tensors.push_back({"rope_freqs.weight", 0, {4}, {}, {}});  // 1/8, 2/8, 3/8, 4/8
  const auto plain = config_of(small_model()), config = config_of(raw);
  for (int i = 0; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(config.rope_inv_freq[std::size_t(i)], plain.rope_inv_freq[std::size_t(i)] * 8 / (i + 1));
  }
  EXPECT_FALSE(config.rope_scaled);
  EXPECT_EQ(read_error(raw), "");
  raw.tensor("rope_freqs.weight").dims = {5};
  EXPECT_TRUE(mentions(read_error(raw), {"rope_freqs.weight", "expected shape {4}, found {5"}));
  raw.tensor("rope_freqs.weight") = {"rope_freqs.weight", 1, {4}, {}, {}};
  EXPECT_TRUE(mentions(read_error(raw), {"rope_freqs.weight", "expected type F32, found F16"}));
}

TEST(LlamaTensors, MissingTensorsAreNamed) {
  for (const auto& tensor : small_model().tensors) {
    auto raw = small_model().erase_tensor(tensor.name);
    int code = 0;
    EXPECT_TRUE(mentions(read_error(raw, &code), {tensor.name.c_str(), "found none"}));
    EXPECT_EQ(code, kBadFile);
  }
}

TEST(LlamaTensors, WrongShapesAreNamed) {
  for (const auto& tensor : small_model().tensors) {
    auto raw = small_model();
    raw.tensor(tensor.name).dims[0] += 8;
    EXPECT_TRUE(mentions(read_error(raw), {tensor.name.c_str(), "expected shape {", "found {"})) << tensor.name;
    raw.tensor(tensor.name).dims = {tensor.dims[0], tensor.dims.size() > 1 ? tensor.dims[1] : 1, 2};
    EXPECT_TRUE(mentions(read_error(raw), {tensor.name.c_str(), "expected shape {"})) << tensor.name;
  }
}

TEST(LlamaTensors, TypesOutsideTheTableAreNamed) {
  auto raw = small_model();
  raw.tensor("blk.1.ffn_down.weight") = {"blk.1.ffn_down.weight", 10, {64, 32}, {}, 0};
  int code = 0;
  EXPECT_TRUE(mentions(read_error(raw, &code),
                       {"blk.1.ffn_down.weight: tensor type Q2_K is not supported; supported: F32, F16"}));
  EXPECT_EQ(code, kUnsupported);
  raw.tensor("blk.1.ffn_down.weight").type = 99;
  EXPECT_TRUE(mentions(read_error(raw), {"tensor type with id 99 is not supported"}));
  // The vocabulary of such a file can be read all the same.
  const auto bytes = raw.bytes();
  EXPECT_NO_THROW(GgufFile::from_memory(as_bytes(bytes), "file"));

  raw = small_model();
  raw.tensor("blk.0.attn_norm.weight") = {"blk.0.attn_norm.weight", 1, {32}, {}, {}};
  EXPECT_TRUE(
      mentions(read_error(raw, &code), {"blk.0.attn_norm.weight: tensor type F16 is not supported for a vector"}));
  EXPECT_EQ(code, kUnsupported);
}

TEST(LlamaTensors, EveryTypeOfTheTableIsRead) {
  for (const auto& type : kDTypes) {
    if (type.block_weights > 64) continue;  // rows of 64 here; super-blocks in the fixtures test
    auto raw = small_model();
    raw.tensor("blk.1.ffn_down.weight").type = std::uint32_t(type.type);
    EXPECT_EQ(read_error(raw), "") << type.name;
  }
}

TEST(LlamaTensors, ViewsPointIntoTheFile) {
  auto raw = small_model();
  raw.tensors.push_back({"blk.0.attn_q.bias", 0, {32}, {}, {}});
  raw.tensors.push_back({"blk.1.ffn_up.bias", 0, {64}, {}, {}});
  raw.tensors.push_back({"output.bias", 0, {6}, {}, {}});
  const auto bytes = raw.bytes();
  const auto file = GgufFile::from_memory(as_bytes(bytes), "file");
  auto tensors = read_tensors(file, read_config(file));
  EXPECT_TRUE(tensors.tied);
  EXPECT_EQ(tensors.output.data, tensors.token_embd.data);
  ASSERT_EQ(tensors.layers.size(), 2u);
  const auto& down = tensors.layers[1].down;
  EXPECT_EQ(down.rows, 32);
  EXPECT_EQ(down.cols, 64);
  EXPECT_EQ(down.data, file.find_tensor("blk.1.ffn_down.weight")->data.data());
  EXPECT_EQ(down.bytes(), file.find_tensor("blk.1.ffn_down.weight")->data.size());
  EXPECT_TRUE(tensors.layers[0].q_bias);
  EXPECT_EQ(tensors.layers[0].q_bias.cols, 32);
  EXPECT_FALSE(tensors.layers[0].k_bias);
  EXPECT_FALSE(tensors.layers[1].q_bias);
  EXPECT_TRUE(tensors.layers[1].up_bias);
  EXPECT_TRUE(tensors.output_bias);

  raw.tensors.push_back({"output.weight", 0, {32, 6}, {}, {}});
  const auto untied_bytes = raw.bytes();
  const auto untied_file = GgufFile::from_memory(as_bytes(untied_bytes), "file");
  tensors = read_tensors(untied_file, read_config(untied_file));
  EXPECT_FALSE(tensors.tied);
  EXPECT_NE(tensors.output.data, tensors.token_embd.data);
}

TEST(LlamaTensors, FusedQkvIsSplit) {
  auto raw = small_model();
  for (const char* part : {"q", "k", "v"}) raw.erase_tensor(std::string("blk.0.attn_") + part + ".weight");
  raw.tensors.push_back({"blk.0.attn_qkv.weight", 8, {32, 64}, {}, {}});
  raw.tensors.push_back({"blk.0.attn_qkv.bias", 0, {64}, {}, {}});
  const auto bytes = raw.bytes();
  const auto file = GgufFile::from_memory(as_bytes(bytes), "file");
  const auto layer = read_tensors(file, read_config(file)).layers[0];
  const auto* start = file.find_tensor("blk.0.attn_qkv.weight")->data.data();
  EXPECT_EQ(layer.q.data, start);
  EXPECT_EQ(layer.q.rows, 32);
  EXPECT_EQ(layer.k.data, start + 32 * 34);
  EXPECT_EQ(layer.k.rows, 16);
  EXPECT_EQ(layer.v.data, start + 48 * 34);
  EXPECT_EQ(layer.v.rows, 16);
  const auto* bias = file.find_tensor("blk.0.attn_qkv.bias")->data.data();
  EXPECT_EQ(layer.q_bias.data, bias);
  EXPECT_EQ(layer.k_bias.data, bias + 32 * 4);
  EXPECT_EQ(layer.v_bias.data, bias + 48 * 4);
  EXPECT_EQ(layer.v_bias.cols, 16);
}

TEST(LlamaTensors, UnknownTensorsAreRefused) {
  auto raw = small_model();
  raw.tensors.push_back({"blk.0.attn_q_norm.weight", 0, {8}, {}, {}});
  int code = 0;
  EXPECT_TRUE(mentions(read_error(raw, &code), {"blk.0.attn_q_norm.weight", "no part of"}));
  EXPECT_EQ(code, kUnsupported);
}

}  // namespace
}  // namespace fastkv
