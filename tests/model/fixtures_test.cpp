// Real files: the small fixtures and SmolLM2 are read, with the numbers their makers state.
#include <gtest/gtest.h>

#include <cmath>

#include "core/quant_blocks.hpp"
#include "model/llama.hpp"
#include "model/vocab.hpp"
#include "support/fixtures.hpp"

namespace fastkv {
namespace {

TEST(Fixtures, Stories260K) {
  const auto path = test::fixtures() / "models" / "stories260K-f32.gguf";
  FASTKV_REQUIRE_FILE(path);
  const auto file = GgufFile::open(path.string());
  const auto config = read_config(file);
  EXPECT_EQ(config.n_layer, 5);
  EXPECT_EQ(config.n_embd, 64);
  EXPECT_EQ(config.n_head, 8);
  EXPECT_EQ(config.n_head_kv, 4);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.n_ctx_train, 128);
  EXPECT_EQ(config.n_vocab, 512);
  EXPECT_EQ(read_tensors(file, config).layers.size(), 5u);
  EXPECT_EQ(read_vocab(file).tokens.size(), 512u);
}

/// The Q4_0 and the Q8_0 file hold the same model: their weights differ by the step of four bits, not more.
TEST(Fixtures, Stories3MInTwoTypes) {
  const auto path4 = test::fixtures() / "models" / "stories3M-Q4_0.gguf";
  const auto path8 = test::fixtures() / "models" / "stories3M-Q8_0.gguf";
  FASTKV_REQUIRE_FILE(path4);
  const auto file4 = GgufFile::open(path4.string()), file8 = GgufFile::open(path8.string());
  const auto tensors4 = read_tensors(file4, read_config(file4)), tensors8 = read_tensors(file8, read_config(file8));
  EXPECT_EQ(tensors4.layers[0].q.type, DType::q4_0);
  EXPECT_EQ(tensors8.layers[0].q.type, DType::q8_0);
  for (std::size_t l = 0; l < tensors4.layers.size(); ++l) {
    const auto& four = tensors4.layers[l].gate;
    const auto& eight = tensors8.layers[l].gate;
    const auto n = std::size_t(four.rows * four.cols);
    std::vector<float> x(n), y(n);
    dequantize_row(four.type, four.data, x.data(), n);
    dequantize_row(eight.type, eight.data, y.data(), n);
    double error = 0, power = 0;
    for (std::size_t i = 0; i < n; ++i) {
      error += std::pow(double(x[i]) - y[i], 2);
      power += std::pow(double(y[i]), 2);
    }
    EXPECT_LT(std::sqrt(error / power), 0.12) << "layer " << l;
    EXPECT_GT(std::sqrt(error / power), 0.03) << "layer " << l;
  }
}

TEST(Fixtures, VocabularyOnlyFiles) {
  const auto gpt2 = test::fixtures() / "tokenizers" / "gpt2" / "ggml-vocab-gpt-2.gguf";
  FASTKV_REQUIRE_FILE(gpt2);
  const auto vocab = read_vocab(GgufFile::open(gpt2.string()));
  EXPECT_EQ(vocab.model, "gpt2");
  EXPECT_EQ(vocab.pre, "gpt-2");
  EXPECT_EQ(vocab.tokens.size(), 50257u);
  EXPECT_EQ(vocab.merges.size(), 50000u);
  EXPECT_EQ(vocab.eos, 50256);
  const auto spm =
      read_vocab(GgufFile::open((test::fixtures() / "tokenizers" / "llama2" / "ggml-vocab-llama-spm.gguf").string()));
  EXPECT_EQ(spm.model, "llama");
  EXPECT_EQ(spm.tokens.size(), 32000u);
  EXPECT_EQ(spm.scores.size(), 32000u);
}

/// What make-model wrote for the fuzzer; Q4_K_M falls back where rows are no multiple of 256.
TEST(Fixtures, MakeModel) {
  const auto folder = std::filesystem::path(FASTKV_BINARY_DIR) / "tests" / "fuzz" / "seeds";
  const std::pair<const char*, DType> kFiles[] = {
      {"f16.gguf", DType::f16}, {"q4_0.gguf", DType::q4_0}, {"q4_k_m.gguf", DType::q5_0}};
  for (const auto& [name, type] : kFiles) {
    FASTKV_REQUIRE_FILE(folder / name);
    const auto file = GgufFile::open((folder / name).string());
    const auto config = read_config(file);
    const auto tensors = read_tensors(file, config);
    EXPECT_EQ(tensors.layers[0].q.type, type);
    EXPECT_EQ(std::size_t(config.n_vocab), read_vocab(file).tokens.size());
    std::vector<float> x(std::size_t(tensors.layers[0].q.rows * tensors.layers[0].q.cols));
    dequantize_row(type, tensors.layers[0].q.data, x.data(), x.size());
    double power = 0;
    for (const float value : x) power += double(value) * value;
    EXPECT_NEAR(std::sqrt(power / double(x.size())), 1 / std::sqrt(config.n_embd), 0.02);  // a normal of 1/sqrt(inputs)
  }
}

TEST(Fixtures, SmolLM2) {
  const auto path = test::smollm2();
  FASTKV_REQUIRE_FILE(path);
  const auto file = GgufFile::open(path.string());
  const auto config = read_config(file);
  EXPECT_EQ(config.n_layer, 30);
  EXPECT_EQ(config.n_embd, 576);
  EXPECT_EQ(config.n_head, 9);
  EXPECT_EQ(config.n_head_kv, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.n_ctx_train, 8192);
  EXPECT_EQ(config.rope_base, 100000.0);
  const auto tensors = read_tensors(file, config);
  EXPECT_TRUE(tensors.tied);
  EXPECT_EQ(tensors.layers[29].down.type, DType::q4_1);
  const auto vocab = read_vocab(file);
  EXPECT_EQ(vocab.pre, "smollm");
  EXPECT_EQ(vocab.tokens.size(), 49152u);
  EXPECT_FALSE(vocab.chat_template.empty());
}

}  // namespace
}  // namespace fastkv
