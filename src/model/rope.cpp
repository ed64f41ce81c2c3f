// Computes rotary frequencies from the metadata and the factors of a file.
#include "model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string>
#include <vector>

#include "core/check.hpp"
#include "core/dtype.hpp"

namespace fastkv {
namespace {

/// An optional float from `low` to `high`.
double number(const LlamaKeys& keys, std::string_view name, double fallback, double low, double high) {
  const auto value = keys.file().find_f32(keys.key(name));
  if (!value) return fallback;
  check(*value >= low && *value <= high, ErrorCode::bad_file, keys.where(name), "expected a value from ", low, " to ",
        high, ", found ", *value);
  return *value;
}

/// rope_freqs.weight: what divides θ_i, i < d/2; ones when the file has none.
std::vector<double> frequency_factors(const GgufFile& file, std::size_t n) {
  std::vector<double> factors(n, 1.0);
  const auto* tensor = file.find_tensor("rope_freqs.weight");
  if (tensor == nullptr) return factors;
  const auto where = concat(file.path(), ": tensor 'rope_freqs.weight': ");
  check(dtype_from_ggml(tensor->ggml_type) == DType::f32, ErrorCode::unsupported, where, "expected type F32, found ",
        ggml_type_name(tensor->ggml_type));
  check(tensor->dims[0] == n && tensor->data.size() == n * sizeof(float), ErrorCode::bad_file, where,
        "expected shape {", n, "}, found {", tensor->dims[0], ", ", tensor->dims[1], ", ", tensor->dims[2], ", ",
        tensor->dims[3], "}");
  for (std::size_t i = 0; i < n; ++i) {
    float factor = 0;
    std::memcpy(&factor, tensor->data.data() + i * sizeof(float), sizeof(float));
    check(factor > 0 && std::isfinite(factor), ErrorCode::bad_file, where, "expected finite factors > 0, found ",
          factor, " at index ", i);
    factors[i] = factor;
  }
  return factors;
}

/// The share of the unscaled frequency i in YaRN's mixture, m_i of the header.
std::vector<double> yarn_mixture(const LlamaKeys& keys, const ModelConfig& config) {
  const double d = config.head_dim;
  const double context = keys.has("rope.scaling.original_context_length")
                             ? keys.count("rope.scaling.original_context_length", 0x7fffffff)
                             : config.n_ctx_train;
  const double beta_fast = number(keys, "rope.scaling.yarn_beta_fast", 32.0, 1e-3, 1e6);
  const double beta_slow = number(keys, "rope.scaling.yarn_beta_slow", 1.0, 1e-3, 1e6);
  const double extrapolation = number(keys, "rope.scaling.yarn_ext_factor", 1.0, -1.0, 1.0);
  const double share = extrapolation < 0 ? 1.0 : extrapolation;  // negative: not set
  const auto corrected = [&](double beta) {
    return d * std::log(context / (beta * 2 * std::numbers::pi)) / (2 * std::log(config.rope_base));
  };
  const double low = std::max(0.0, std::floor(corrected(beta_fast)));
  const double high = std::min(d - 1, std::ceil(corrected(beta_slow)));
  std::vector<double> mixture(std::size_t(config.head_dim / 2));
  for (std::size_t i = 0; i < mixture.size(); ++i) {
    const double ramp = (double(i) - low) / std::max(0.001, high - low);
    mixture[i] = share * (1.0 - std::clamp(ramp, 0.0, 1.0));
  }
  return mixture;
}

/// Factor on cos and sin that goes with YaRN.
double yarn_magnitude(const LlamaKeys& keys, double scale) {
  const auto mscale = [&](double multiplier) { return scale <= 1 ? 1.0 : 1.0 + 0.1 * multiplier * std::log(scale); };
  const double multiplier = number(keys, "rope.scaling.yarn_log_multiplier", 0.0, 0.0, 1e3);
  return multiplier == 0 ? mscale(1.0) : mscale(1.0) / mscale(multiplier);
}

}  // namespace

void read_rope(const LlamaKeys& keys, ModelConfig& config) {
  const auto& file = keys.file();
  if (keys.has("rope.dimension_count")) {
    const auto rotated = keys.count("rope.dimension_count", 1u << 16);
    check(int(rotated) == config.head_dim, ErrorCode::unsupported, keys.where("rope.dimension_count"),
          "expected the head size ", config.head_dim, ", found ", rotated);
  }
  config.rope_base = number(keys, "rope.freq_base", 10000.0, 1.0 + 1e-3, 1e12);

  const auto scaling = file.find_string(keys.key("rope.scaling.type")).value_or("linear");
  const bool yarn = scaling == "yarn";
  check(yarn || scaling == "linear" || scaling == "none", ErrorCode::unsupported, keys.where("rope.scaling.type"),
        "RoPE scaling ", quoted(scaling), " is not supported; supported: none, linear, yarn");
  constexpr double kMaxScale = 1e6;
  double scale =
      number(keys, keys.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear", 0.0, 0.0, kMaxScale);
  if (scale == 0 || scaling == "none") scale = 1;  // 0: not set

  const auto n = std::size_t(config.head_dim / 2);
  const auto factors = frequency_factors(file, n);
  const auto mixture = yarn ? yarn_mixture(keys, config) : std::vector<double>(n, 0.0);
  config.rope_inv_freq.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double theta = std::pow(config.rope_base, -2.0 * double(i) / config.head_dim) / factors[i];
    config.rope_inv_freq[i] = theta * mixture[i] + theta / scale * (1.0 - mixture[i]);
  }
  const double attention_factor = number(keys, "rope.scaling.attn_factor", 1.0, 1e-3, 1e3);
  config.rope_magnitude = float(attention_factor * (yarn ? yarn_magnitude(keys, scale) : 1.0));
  config.rope_scaled = scale > 1;
}

}  // namespace fastkv
