// Scores of a layer's keys from the attention of some query rows, never storing the attention matrix.
#pragma once

#include "backend/backend.hpp"
#include "backend/cuda/kernels/attention.hpp"

namespace fastkv::cuda {

/// Bytes of work space for column_scores() of `rows` query rows over n keys.
std::size_t column_scores_bytes(const AttentionShape& shape, std::int64_t rows, std::int64_t n);

/// scores [H][n − wanted.drop] float32 = Σ over the last wanted.rows rows a of λ_a · softmax(scale · q_a·Kᵀ) over the
/// columns that row a sees (core/index_rules.hpp). Two passes over tiles on tensor cores: each row's maximum and sum,
/// then column sums, each in a fixed order. q [kept rows][H][d] rotated, of which the last wanted.rows count;
/// k [K][n][d].
void column_scores(cudaStream_t stream, const AttentionShape& shape, const f16* q, std::int64_t q_rows, const f16* k,
                   std::int64_t n, const ColumnScores& wanted, void* work, float* scores);

/// scores [H][n] = q_h · k_j, unscaled, of one row q [H][d] (2.6).
void last_row_logits(cudaStream_t stream, const AttentionShape& shape, const f16* q, const f16* k, std::int64_t n,
                     float* scores);

}  // namespace fastkv::cuda
