// The kernel table: every single-thread kernel of the CPU backend as a function pointer, one table per ISA level.
//
// Conventions. Raw pointers, no allocation, no threads, no exceptions, no overlap of inputs and outputs unless said.
// bfloat16 is rounded to nearest even; subnormal values may become zero, as the instructions that multiply it take them.
// Buffers are 64-byte aligned where marked [64], else any alignment. Matrices are row-major; "panel" is 16 outputs wide
// (packed.hpp). K counts inputs, padded to a multiple of kGroup = 32 with zeros where marked K32.
// Row independence: an output row depends only on its own input row and is bitwise the same whatever the other rows,
// the number of rows M, or its place among them (float accumulation runs over k in ascending order with one fused
// multiply-add a step, or one a group). eps = 2^-24. Error bounds are against the exact result on the same inputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/isa.hpp"
#include "simd/packed.hpp"

namespace fastkv::simd {

/// Activations of decode, quantised to int8 per group of 32: x ≈ scale[k/32] · q[k], |q| ≤ 127.
struct I8Rows {
  const std::int8_t* q;        ///< [M, K32]
  const float* scale;          ///< [M, K32/32]
  const std::int32_t* sum;     ///< [M, K32/16], Σ q over each 16
};

/// What a matrix-vector product reads: `count` consecutive packed panels, or two such runs side by side. Two streams read
/// faster than one, the more so the further apart (by 18 KB 29.6 GB/s, by 147 KB and more 33.5).
struct PanelRuns {
  const void* panels[2];  ///< the second null: one run
  const void* next[2];    ///< what the thread reads afterwards, fetched at the end; null: what lies behind the run
  std::int64_t count;
};

/// The int8 arithmetic of prefill. Inputs are rotated in blocks of 64 (a Hadamard transform, on activations and weights
/// alike: their products stay, outliers are spread) and then share a scale in groups of KernelTable::wide_group. K64 is K
/// padded with zeros to a multiple of 64, G = ⌈K64 / wide_group⌉, the last group may be shorter.
inline constexpr int kRotation = 64;
inline constexpr int kWeightZero = 128;  ///< the code of a weight that is 0

/// Rotated activations: H x ≈ scale · q, |q| ≤ 127, H of ±1. Where the level's dot product adds two products in 16 bits,
/// |q[2i] + q[2i+1]| ≤ 128 too, so that with weights of 8 bits no sum exceeds 255 · 128 = 32640 < 2¹⁵.
struct RotatedRows {
  const std::int8_t* q;     ///< [M, K64]
  const float* scale;       ///< [M, G]
  const std::int32_t* sum;  ///< [M, G], Σ q
};

/// Rotated weights: H w / 64 ≈ scale · (q − kWeightZero).
struct RotatedPanels {
  const std::uint8_t* q;  ///< [P][K64/4][16][4] [64], q ≥ 1
  const float* scale;     ///< [P][G][16]        [64], with 22 significant bits
};

/// Element types of cached K and V rows.
enum class RowType : std::uint8_t { f32, f16, bf16, q8_0 };
/// Bytes of a row of d values; q8_0: per 32 values an f16 scale and 32 int8 (d a multiple of 32).
inline std::size_t row_bytes(RowType type, int d) {
  switch (type) {
    case RowType::f32: return std::size_t(d) * 4;
    case RowType::f16:
    case RowType::bf16: return std::size_t(d) * 2;
    case RowType::q8_0: return std::size_t(d) / 32 * 34;
  }
  return 0;
}

/// The cache of a head is a sequence of blocks of kCacheRows positions, read from front to back as one stream:
///
///   K  per 16 positions a panel [d][16] of values, of q8_0 per 32 dims [16] scales and [32][16] int8: a score takes no
///      sum across lanes
///   V  per kValueDims dims, the last time what is left, kCacheRows rows of them
///
/// Two Zen 4 cores read so as fast as a plain loop does; keys here and values there, in turns of 4 KiB, at 90 to 95 % of
/// it, in turns of 8 KiB at 85 to 93 %, rows of 128 values by halves at 60 %.
inline constexpr int kCacheRows = 32, kValueDims = 64;
inline std::size_t cache_block_bytes(RowType k, RowType v, int d) {
  return std::size_t(kCacheRows) * (row_bytes(k, d) + row_bytes(v, d));
}
/// Where in a block the panel of key `row` begins.
inline std::size_t key_panel_at(RowType k, int d, int row) { return std::size_t(row / kLanes * kLanes) * row_bytes(k, d); }
/// Values of a row that lie one behind the other, from dim `first` on, a multiple of kValueDims.
inline int value_dims(int d, int first) { return d - first < kValueDims ? d - first : kValueDims; }
/// Where in a block they begin.
inline std::size_t values_at(RowType k, RowType v, int d, int row, int first) {
  return kCacheRows * (row_bytes(k, d) + row_bytes(v, first)) + std::size_t(row) * row_bytes(v, value_dims(d, first));
}

/// Positions of a cache that some query heads read.
struct CachedRows {
  RowType k_type, v_type;
  const void* blocks;          ///< [64] ⌈n / kCacheRows⌉ of them
  std::int64_t n;              ///< ≥ 1
  int d;
  const void* next = nullptr;  ///< what is read afterwards, and fetched; null: what lies behind the blocks
};
/// How much a score may be above the maximum over which attend_rows weighs it: e^8 of a weight costs no precision, and
/// the sums need scaling only where a score is more than that above all before it.
inline constexpr float kScoreSlack = 8;

/// Keys of a block of the layouts that attention of prefill reads.
inline constexpr int kKeyBlock = 128;

/// Query rows against the keys and values of their key/value head.
struct AttentionRows {
  const float* q;               ///< [m, ldq]: of each row, `group` query heads of d values
  std::int64_t ldq;
  const std::int32_t* limits;   ///< [m]: row i sees keys 0 .. limits[i]−1, ≥ 1
  std::int64_t m;
  int group, d;                 ///< d a multiple of 8, ≤ 256
  float scale;
  const void *keys, *values;    ///< [64] panels of all keys up to a multiple of 128, values in blocks of 128 keys
  void* work;                   ///< [64] attention_work_bytes(m · group, d) bytes
  float* out;                   ///< [m, ldo], as q
  std::int64_t ldo;
};
/// Any level's work space for `rows` = positions × query heads.
inline std::size_t attention_work_bytes(std::int64_t rows, int d) {
  // a query row and an output row in float32, sums of 16 lanes, maximum, limit; scores and probabilities of some rows
  return std::size_t(rows + 32) * (std::size_t(d + 31) / 32 * 32 * 8 + 64 + 8) + std::size_t(65536);
}

struct KernelTable {
  Isa isa;
  /// Inputs that share a scale in prefill's int8 arithmetic: 64 where products are added in 16 bits, else 256 (73 % of
  /// the dot products' peak, KL from float32 0.0023; 128 inputs: 69 %, 0.0020).
  int wide_group;

  // ---- weights: packed panel -> compute panel ----------------------------------------------------------------------
  /// q [K64/4][16][4], scale [G][16] of one panel, rotated and rounded to int8. `k` inputs, a multiple of the block.
  void (*unpack_i8)(Packing packing, const void* panel, std::int64_t k, std::uint8_t* q, float* scale);
  /// out [K32/2][16][2] bfloat16 = weights rounded.
  void (*unpack_bf16)(Packing packing, const void* panel, std::int64_t k32, std::uint16_t* out);
  /// out [K32][16] float32 = weights as ggml dequantises them (≤ 2 eps relative).
  void (*unpack_f32)(Packing packing, const void* panel, std::int64_t k32, float* out);

  // ---- linear layers: C[M, 16·P] = A · Wᵀ --------------------------------------------------------------------------
  /// q, scale, sum of one row x [k]; q padded with zeros to K32 = round_up(k, 32). scale = max|x| / 127 per 32.
  void (*quantize_i8)(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sum);
  /// q, scale, sum of one row x [k] rotated, of ⌈k/64⌉·64 and G elements.
  void (*rotate_i8)(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sum);
  /// c[m·ldc + 16p + r] = Σ_g a.scale · b.scale · Σ a.q (b.q − kWeightZero), the inner sums exact (int32).
  /// |error| ≤ (G + 2) eps Σ_g a.scale · b.scale · |Σ a.q (b.q − kWeightZero)|.
  void (*gemm_i8)(std::int64_t m, std::int64_t k64, const RotatedRows& a, const RotatedPanels& b, std::int64_t panels,
                  float* c, std::int64_t ldc);
  /// a [M, lda] bfloat16, b [P][k2/2][16][2] bfloat16 [64], k2 even; float32 accumulation; c += if accumulate.
  /// |error| ≤ (k2 + 2) eps Σ|a||w|.
  void (*gemm_bf16)(std::int64_t m, std::int64_t k2, const std::uint16_t* a, std::int64_t lda, const std::uint16_t* b,
                    std::int64_t panels, float* c, std::int64_t ldc, bool accumulate);
  /// a [M, lda] float32, b [P][k][16] float32 [64]; c += if accumulate. |error| ≤ (k + 1) eps Σ|a||w|.
  void (*gemm_f32)(std::int64_t m, std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t panels,
                   float* c, std::int64_t ldc, bool accumulate);
  /// out[runs][16·count] = one activation row times packed panels, read once and fetched ahead.
  /// Quantised packings only: out[r] = Σ_g a.scale · (scale · Σ q·(w − zero) − min · Σ q), integer sums exact.
  /// |error| ≤ (K32/16 + 4) eps Σ|a|(|scale·(w − zero)| + |min|).
  void (*gemv_i8)(Packing packing, const PanelRuns& runs, std::int64_t k32, const I8Rows& a, float* out);
  /// The same for a row x [K32] float32, weights as unpack_f32. Every packing.
  void (*gemv_f32)(Packing packing, const PanelRuns& runs, std::int64_t k32, const float* x, float* out);

  // ---- rows of the residual stream ---------------------------------------------------------------------------------
  /// out = x / sqrt(mean(x²) + eps) · weight, all [n]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, std::int64_t n, float eps, float* out);
  void (*add)(float* x, const float* y, std::int64_t n);                                      ///< x += y
  void (*scale)(float* x, float a, std::int64_t n);                                           ///< x *= a
  void (*axpy)(float a, const float* x, std::int64_t n, float* y);                            ///< y += a·x
  void (*silu_mul)(const float* gate, const float* up, std::int64_t n, float* out);           ///< gate/(1+e^-gate) · up
  /// The same within 2^-12 of the result, for what is rounded to bfloat16 or int8 next.
  void (*silu_mul_narrow)(const float* gate, const float* up, std::int64_t n, float* out);
  /// Rotates adjacent pairs (2i, 2i+1) of `heads` vectors x [heads, d] in place; cos_sin [d/2][2].
  void (*rope)(float* x, const float* cos_sin, int heads, int d);
  void (*f32_to_bf16)(const float* x, std::int64_t n, std::uint16_t* out);                    ///< see above

  // ---- attention of prefill ----------------------------------------------------------------------------------------
  /// Keys [n ≤ 16, ld] -> panel [d][16]; lanes ≥ n are zero.
  void (*pack_keys_f32)(const float* keys, std::int64_t ld, int n, int d, float* panel);
  /// Keys [n ≤ 16, ld] -> panel [d32/2][16][2] bfloat16, d32 = round_up(d, 32); lanes ≥ n and dims ≥ d are zero. d even.
  void (*pack_keys_bf16)(const float* keys, std::int64_t ld, int n, int d, std::uint16_t* panel);
  /// Values [n, ld] -> [ceil(d/16)][n_pad][16]; keys n..n_pad-1 and dims ≥ d are zero.
  void (*pack_values_f32)(const float* values, std::int64_t ld, int n, int n_pad, int d, float* out);
  /// Values [n, ld] -> [ceil(d/16)][n_pad/2][16][2] bfloat16, n_pad a multiple of 32. The 32 keys of 16 pairs are in the
  /// order in which attend_bf16 of the same table takes them; any order is a valid one.
  void (*pack_values_bf16)(const float* values, std::int64_t ld, int n, int n_pad, int d, std::uint16_t* out);
  /// out = softmax(scale · q·Kᵀ over each row's first keys) · V by an online softmax over blocks of keys. Relative error
  /// of a probability ≤ 2 (d + 8) eps Σ|scale · log2(e) · q·k| + 8 eps; sums over n keys (n + 8) eps more.
  void (*attend_f32)(const AttentionRows& rows);
  /// The same on queries (scaled), keys and values rounded to bfloat16; probabilities within 2^-7 more, summed as rounded.
  void (*attend_bf16)(const AttentionRows& rows);

  // ---- scores and decode -------------------------------------------------------------------------------------------
  float (*row_max)(const float* x, std::int64_t n);                                           ///< −inf for n = 0
  /// x = exp(scale·x − max) in place, returns Σ (16 running sums, fixed order). ≤ 4 eps relative each, beside what the
  /// rounding of the argument makes (|scale·x| + |argument| eps); below e^−86.9 it is 0.
  float (*exp_sum)(float* x, std::int64_t n, float scale, float max);
  /// A float32 row [d] to a cache row, rounded once to nearest even (f16 saturates to ±65504).
  void (*encode_row)(RowType type, const float* x, int d, void* row);
  /// The same to lane `lane` of a panel of keys, d ≤ 256.
  void (*encode_key)(RowType type, const float* x, int d, void* panel, int lane);
  /// Its inverse, row -> out [d].
  void (*decode_row)(RowType type, const void* row, int d, float* out);
  /// out[g·ldo + j] = scale · q[g] · key[j], j < n: q [G, d], panels of 16 keys one behind the other, the last one
  /// whole. |error| ≤ (2 d + 2) eps |scale| Σ|q·k|.
  void (*attend_keys)(RowType type, const float* q, int group, const void* keys, std::int64_t n, int d, float scale,
                      float* out, std::int64_t ldo);
  /// out[g·d ..] = Σ_j p · value[j] and sum[g] = Σ_j p with p = exp(s − max[g]), s = scale · q[g] · key[j], j < n: p is
  /// ≤ 4 eps relative and |s − max| eps, and what the error of s makes (see attend_keys). The largest s of g is in
  /// [max[g], max[g] + kScoreSlack]; sums are scaled for it up to ⌈n / kCacheRows⌉ times, 5 eps each. q [G, d].
  void (*attend_rows)(const CachedRows& rows, const float* q, int group, float scale, float* out, float* max, float* sum);
  /// The same with bfloat16 dot products where the level has them: queries (scaled), keys, values and p are rounded to
  /// bfloat16, p summed as rounded. Float16 is rounded halves away from zero, and then zero below 2^-14.
  void (*attend_rows_bf16)(const CachedRows& rows, const float* q, int group, float scale, float* out, float* max,
                           float* sum);
};

/// The table of `isa`; only call its kernels if supported(isa).
const KernelTable& kernels(Isa isa);

/// Best supported level, or the one named by the environment variable FASTKV_ISA or by `forced` (which wins, may be
/// null). Returns false and a one-line `message` (≤ 256 bytes) when the name is unknown or this CPU cannot run it: it
/// lists the levels that it can.
bool choose_isa(const char* forced, Isa& isa, char message[256]);

}  // namespace fastkv::simd
