// Causal attention of prefill: a tile of query rows against all keys of a layer, block by block, never an n x n matrix.
#pragma once

#include <cstdint>

#include "backend/cpu/handles.hpp"
#include "backend/cpu/linear.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {

inline constexpr int kMaxHeadDim = 256;  ///< head sizes are multiples of 8 up to this

struct AttentionShape {
  int heads, heads_kv, d;
  float scale;  ///< on the dot products, 1/sqrt(d)
  int group() const { return heads / heads_kv; }
};

/// Bytes of the compute layout of K (and of V) for n rows, all key/value heads.
std::size_t key_panel_bytes(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t n);
std::size_t value_panel_bytes(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t n);

/// Key blocks of n rows; pack_key_block() is to be called once for each (head, block), from any thread.
inline std::int64_t key_blocks(std::int64_t n) { return ceil_div(n, simd::kKeyBlock); }
void pack_key_block(const Arithmetic& arithmetic, const AttentionShape& shape, CpuLayerState& state, int head,
                    std::int64_t block);

/// Rows `ld` elements apart.
template <class T>
struct Rows {
  T* data;
  std::int64_t ld;
};

/// One thread's work space for tiles of at most `rows` query rows.
class AttentionTile {
 public:
  AttentionTile(const Arithmetic& arithmetic, const AttentionShape& shape, std::int64_t rows);
  static std::size_t bytes(const AttentionShape& shape, std::int64_t rows);

  /// out[i] = softmax(scale · q[i]·Kᵀ over keys 0 .. limits[i]-1) · V for the query heads of key/value head `head`
  /// (spec/methods.md 2.1, online softmax). q, out: m rows of G·d of those heads; limits [m], each ≥ 1.
  void run(const CpuLayerState& state, int head, Rows<const float> q, const std::int32_t* limits, std::int64_t m,
           Rows<float> out);

 private:
  const Arithmetic* arithmetic_;
  AttentionShape shape_;
  Buffer work_;
};

}  // namespace fastkv::cpu
