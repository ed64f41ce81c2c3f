// All weights of a model in the resident layout.
#pragma once

#include <vector>

#include "backend/backend.hpp"
#include "backend/cpu/linear.hpp"
#include "backend/cpu/packed_tensor.hpp"
#include "runtime/parallel.hpp"

namespace fastkv::cpu {

/// A matrix and its optional bias [rows].
struct Linear {
  PackedTensor w;
  std::vector<float> bias;
  Buffer kept_memory;
  std::vector<ComputePanels> kept;  ///< views on kept_memory: all panels of each chunk of inputs, or none (keep_panels)

  /// Unpacks the matrix for good. It must not move afterwards.
  void keep_panels(const Arithmetic& arithmetic, ThreadTeam& team, HugePages huge_pages);
  /// y [m, ldy] += bias[first .. first + n) on each row.
  void add_bias(const simd::KernelTable& kernels, std::int64_t first, std::int64_t n, float* y, std::int64_t ldy,
                std::int64_t m) const {
    for (std::int64_t i = 0; !bias.empty() && i < m; ++i) kernels.add(y + i * ldy, bias.data() + first, n);
  }
};

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;  ///< [D]
  Linear q, k, v, o, gate, up, down;
};

struct Weights {
  PackedTensor token_embd;           ///< [V, D]
  PackedTensor output_own;           ///< [V, D], empty when tied
  std::vector<float> output_norm;    ///< [D]
  std::vector<float> output_bias;    ///< optional [V]
  std::vector<LayerWeights> layers;  ///< [N]
  /// Asks the system to keep the matrices in RAM; without the privilege they stay swappable.
  void lock() const;
  /// Linear::keep_panels of all layers.
  void keep_panels(const Arithmetic& arithmetic, ThreadTeam& team, HugePages huge_pages);
  const PackedTensor& output() const { return output_own ? output_own : token_embd; }

  /// Bytes packed; and the largest single tensor in the file.
  static std::size_t packed_bytes(const ModelTensors& tensors);
  static std::size_t largest_tensor(const ModelTensors& tensors);
};

/// Packs every tensor on all threads of `team`, each node's part first by its own threads, then calls `packed` (may be
/// empty) for it; work counts file bytes.
Weights pack_weights(const ModelTensors& tensors, ThreadTeam& team, const Placement& placement, HugePages huge_pages,
                     const std::function<void(const TensorView&)>& packed, RunControl& control);

}  // namespace fastkv::cpu
