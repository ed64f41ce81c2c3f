// A naive reference of every method in double: spec/methods.md read aloud, no shortcut and no tile.
//
// It shares nothing with src/ but the plain types of core/ and the block formats. Every layer is computed for every
// row that enters it, rows are gathered after the layer, and attention weights are stored whole. oracle_model.cpp holds
// the weights, rounding.cpp imitated errors, oracle.cpp the forward pass, oracle_methods.cpp what each method decides.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "core/model_desc.hpp"
#include "fastkv/stats.hpp"

namespace fastkv::test {

using Matrix = std::vector<std::vector<double>>;

/// Rounding to imitate, so that a test can measure how far rounding errors of an arithmetic travel through a model:
/// each is drawn uniformly from ± the given size at the place where that arithmetic rounds. All zero: exact.
struct Rounding {
  double activation = 0;     ///< relative, of each input of a linear layer
  double weight = 0;         ///< relative, of each weight
  double activation_i8 = 0;  ///< of max|H x| per 128 inputs of a linear layer, H a rotation in blocks of 64
  double weight_i8 = 0;      ///< of max|H w| per 32 inputs of a row
  double attention = 0;      ///< relative, of each q, k, v and probability
  double cache = 0;          ///< relative, of each cached K and V element
  double cache_i8 = 0;       ///< of max|row| per 32 elements (q8_0)
  std::uint64_t seed = 0;

  static Rounding f32();
  static Rounding bf16();
  static Rounding int8();
};

/// What one layer did.
struct OracleLayer {
  std::int64_t tokens_in = 0;
  Matrix raw;                                   ///< S [H][scored rows]; empty: nothing was scored
  Matrix pooled;                                ///< P [H][scored rows], where the method pools
  Matrix grouped;                               ///< [stored heads][scored rows] what each one's rows are ranked by
  std::vector<double> hidden;                   ///< [D] the last row after the layer
  std::vector<double> propagation;              ///< z (FastKV), u (PyramidInfer); empty: every row goes on
  std::vector<std::int32_t> positions;          ///< [n] original positions of the rows that entered
  std::vector<std::vector<std::int32_t>> kept;  ///< [stored heads] positions, ascending
  std::vector<Matrix> keys, values;             ///< [stored heads][len][d] the cache
  std::optional<double> coverage;
};

struct OracleResult {
  std::vector<OracleLayer> layers;
  std::optional<int> tsp_layer;
  std::vector<std::int32_t> tsp_kept;  ///< original positions
  std::vector<std::int32_t> selected;  ///< GemFilter: tokens of the second pass; empty: there was only one
  std::vector<double> filter_scores;   ///< v [L] by which they were chosen
  std::int64_t next_position = 0;
  std::vector<double> logits;  ///< [V] for the first generated token
  Matrix decode_logits;        ///< [steps][V]: after feeding generated token 0, 1, …
  Matrix prompt_logits;        ///< [n, V] of every prompt token, full method only
  std::vector<std::int32_t> generated;
  std::size_t kv_bytes_f16 = 0;
};

/// Decisions taken elsewhere that the oracle is to follow instead of its own, so that everything else can be compared
/// tightly; its scores are still its own.
struct Imposed {
  std::vector<std::vector<std::vector<std::int32_t>>> kept;  ///< [N][stored heads] positions
  std::optional<std::vector<std::int32_t>> tsp_kept;         ///< absent: no TSP took place
  std::vector<std::int32_t> selected;                        ///< GemFilter
};

struct OracleRun {
  MethodParams method;             ///< resolved; clamps of spec/methods.md 3 are applied here
  std::vector<std::int32_t> feed;  ///< tokens to feed in decode; beyond its end the oracle's own choices
  int n_generate = 1;              ///< tokens to generate, the first one from the prefill
  const Imposed* imposed = nullptr;
  Rounding rounding;
  bool prompt_logits = false;
};

class Oracle {
 public:
  Oracle(const ModelConfig& config, const ModelTensors& tensors);
  OracleResult run(std::span<const std::int32_t> prompt, const OracleRun& options) const;

  struct Linear {
    std::int64_t in = 0, out = 0;
    std::vector<double> weight;  ///< [in, out]: transposed, so that the inner loop runs along the outputs
    std::vector<double> bias;    ///< [out] or empty
    std::vector<double> step;    ///< [in64/32, out] max|H w| of each 32 inputs
  };
  struct Layer {
    std::vector<double> attn_norm, ffn_norm;
    Linear q, k, v, o, gate, up, down;
  };

 private:
  friend class OraclePass;
  ModelConfig config_;
  double scale_;                   ///< of q·k
  std::vector<double> embedding_;  ///< [V, D]
  std::vector<double> output_norm_;
  Linear output_;
  std::vector<Layer> layers_;
};

/// Indices of the `k` largest scores, ascending; equal scores: the lower index first (spec/methods.md 0.4).
std::vector<std::int32_t> top_indices(const std::vector<double>& scores, std::int64_t k);
/// Pooling of width `kernel` (0.3); a score is shared by `shift` rows fewer before it and more after it.
std::vector<double> pooled(const std::vector<double>& scores, Pooling pooling, int kernel, int shift = 0);

/// The defaults of spec/cli.md for a model of `n_layer` layers.
MethodParams method_defaults(MethodName method, int n_layer);
MethodParams fastkv_defaults(int n_layer);
MethodParams full_method();

/// Ids of the largest logits, best first; ties to the lower id.
std::vector<std::int32_t> best_tokens(const std::vector<double>& logits, std::size_t count);

}  // namespace fastkv::test
