// Shapes of well-known models, and the type of every tensor in them.
#include "make-model/shapes.hpp"

#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace fastkv::tools {

const std::vector<Shape>& shapes() {
  using enum VocabularyKind;
  static const std::vector<Shape> kShapes = {
      // name, layers, D, F, H, K, d, V, context, rope base, rope factor, tied, vocabulary
      {"llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128256, 131072, 5e5f, 32, true, llama3},
      {"llama-3.2-3b", 28, 3072, 8192, 24, 8, 128, 128256, 131072, 5e5f, 32, true, llama3},
      {"llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128256, 131072, 5e5f, 8, false, llama3},
      {"ministral-8b", 36, 4096, 12288, 32, 8, 128, 131072, 32768, 1e8f, 0, false, tekken},
      {"mistral-nemo-12b", 40, 5120, 14336, 32, 8, 128, 131072, 131072, 1e6f, 0, false, tekken},
      {"tiny", 4, 256, 512, 8, 2, 32, 1024, 131072, 5e5f, 8, false, llama3},
      // Small enough to be a fuzzer's seed.
      {"nano", 1, 32, 32, 2, 1, 16, 272, 2048, 1e4f, 0, true, sentencepiece},
  };
  return kShapes;
}

std::uint32_t file_type(std::string_view type) {
  constexpr std::array<std::pair<std::string_view, std::uint32_t>, 6> kNumbers = {
      {{"f32", 0}, {"f16", 1}, {"q4_0", 2}, {"q8_0", 7}, {"q4_k_m", 15}, {"bf16", 32}}};
  for (const auto& [name, number] : kNumbers) {
    if (name == type) return number;
  }
  return 0;
}

namespace {

/// Which layers get more bits in "medium" mixtures: the first and last eighth and every third between.
bool more_bits(std::uint32_t layer, std::uint32_t n_layer) {
  return layer < n_layer / 8 || layer >= 7 * n_layer / 8 || (layer - n_layer / 8) % 3 == 2;
}

class Planner {
 public:
  Planner(const Shape& shape, std::string_view type) : shape_(shape), type_(type) {}

  std::vector<TensorPlan> run() {
    const std::uint64_t d = shape_.n_embd, ff = shape_.n_ff, vocab = shape_.n_vocab;
    const std::uint64_t q = std::uint64_t(shape_.n_head) * shape_.head_dim,
                        kv = std::uint64_t(shape_.n_head_kv) * shape_.head_dim;
    if (shape_.rope_factor > 0) {
      plan_.push_back({"rope_freqs.weight", "F32", {shape_.head_dim / 2}, TensorPlan::Fill::rope_factors});
    }
    matrix("token_embd.weight", shape_.tied ? head_type() : base_type(), d, vocab);
    for (std::uint32_t l = 0; l < shape_.n_layer; ++l) {
      const auto block = "blk." + std::to_string(l) + ".";
      const auto rich = type_ == "q4_k_m" && more_bits(l, shape_.n_layer) ? "Q6_K" : base_type();
      norm(block + "attn_norm.weight");
      matrix(block + "attn_q.weight", base_type(), d, q);
      matrix(block + "attn_k.weight", base_type(), d, kv);
      matrix(block + "attn_v.weight", rich, d, kv);
      matrix(block + "attn_output.weight", base_type(), q, d);
      norm(block + "ffn_norm.weight");
      matrix(block + "ffn_gate.weight", base_type(), d, ff);
      matrix(block + "ffn_up.weight", base_type(), d, ff);
      matrix(block + "ffn_down.weight", rich, ff, d);
    }
    norm("output_norm.weight");
    if (!shape_.tied) matrix("output.weight", head_type(), d, vocab);
    return std::move(plan_);
  }

 private:
  /// Of matrices that are nothing special.
  std::string base_type() const {
    if (type_ == "q4_k_m") return "Q4_K";
    std::string name(type_);
    for (char& c : name) c = char(std::toupper(static_cast<unsigned char>(c)));
    return name;
  }

  /// Of the output head, which suffers most from few bits.
  std::string head_type() const { return type_ == "q4_k_m" || type_ == "q4_0" ? "Q6_K" : base_type(); }

  void matrix(std::string name, std::string type, std::uint64_t in, std::uint64_t out) {
    // Rows that super-blocks of 256 do not divide fall back to the next larger format with blocks of 32.
    if (in % 256 != 0 && type == "Q4_K") type = "Q5_0";
    if (in % 256 != 0 && type == "Q6_K") type = "Q8_0";
    plan_.push_back({std::move(name), std::move(type), {in, out}, TensorPlan::Fill::normal});
  }

  void norm(std::string name) { plan_.push_back({std::move(name), "F32", {shape_.n_embd}, TensorPlan::Fill::norm}); }

  const Shape& shape_;
  std::string_view type_;
  std::vector<TensorPlan> plan_;
};

}  // namespace

std::vector<TensorPlan> plan_tensors(const Shape& shape, std::string_view type) { return Planner(shape, type).run(); }

std::vector<float> rope_factors(const Shape& shape) {
  constexpr double kOriginal = 8192, kLow = 1, kHigh = 4;
  std::vector<float> factors(shape.head_dim / 2);
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const double theta = std::pow(double(shape.rope_base), -2.0 * double(i) / shape.head_dim);
    const double wavelength = 2 * std::numbers::pi / theta;
    if (wavelength < kOriginal / kHigh) {
      factors[i] = 1;
    } else if (wavelength > kOriginal / kLow) {
      factors[i] = shape.rope_factor;
    } else {
      const double smooth = (kOriginal / wavelength - kLow) / (kHigh - kLow);
      factors[i] = float(1 / ((1 - smooth) / shape.rope_factor + smooth));
    }
  }
  return factors;
}

}  // namespace fastkv::tools
