// Scores of a layer's keys and what is done with them: sums of attention, pooling, head reduction, top-k.
#pragma once

#include <memory>

#include "backend/cpu/attention.hpp"
#include "backend/cpu/handles.hpp"
#include "core/index_rules.hpp"
#include "runtime/shared_work.hpp"

namespace fastkv::cpu {

/// Everything here runs on `team`; float32 throughout.
struct ScoreContext {
  const Arithmetic& arithmetic;
  const AttentionShape& shape;
  ThreadTeam& team;
  RunControl& control;
  const std::shared_ptr<ScoreMemory>& memory;
};

/// S[h, j], j < n − drop: a few rows at once, many by column_sums().
std::unique_ptr<CpuScores> column_scores(const ScoreContext& context, const CpuLayerState& state,
                                         const ColumnScores& wanted);
/// u[h, j] = q_h·k_j of the last row (2.6).
std::unique_ptr<CpuScores> last_row_logits(const ScoreContext& context, const CpuLayerState& state);
/// How many rows' queries begin_layer computes when the last `rows` of n score: all if they are few more, which spares
/// finish_layer a pass over Wq.
inline std::int64_t query_rows(std::int64_t n, std::int64_t rows) { return n <= 2 * rows ? n : rows; }
/// Bytes that scores of a layer of n rows take, queries included.
std::size_t score_bytes(const AttentionShape& shape, int threads, std::int64_t rows, std::int64_t n);

/// column_scores() of many rows (column_sums.cpp): two passes over tiles of the attention matrix, which is never
/// stored.
void column_sums(const ScoreContext& context, const CpuLayerState& state, const ColumnScores& wanted,
                 CpuScores& scores);
std::size_t column_sum_bytes(const AttentionShape& shape, int threads, std::int64_t rows);

/// How many keys scoring row `a` of wanted.rows sees, of n; and its λ_a.
inline std::int64_t seen_keys(const ColumnScores& wanted, std::int64_t n, std::int64_t a) {
  return fastkv::seen_keys(n, wanted.rows, wanted.causal_rows, a);
}
inline float row_weight(const ColumnScores& wanted, std::int64_t a) {
  return fastkv::row_weight(wanted.rows, wanted.last_weight, a);
}

/// P (0.3).
std::unique_ptr<CpuScores> pool(ThreadTeam& team, const CpuScores& scores, Pooling pooling, const PoolWidth& width);
std::unique_ptr<CpuScores> reduce_heads(ThreadTeam& team, const CpuScores& scores, int groups, GroupReduce reduce);
std::unique_ptr<CpuSelection> top_k(ThreadTeam& team, const CpuScores& scores, std::int64_t n,
                                    const std::vector<std::int64_t>& k, std::int64_t first, std::int64_t last);
double coverage(const CpuScores& raw, const CpuSelection& keep, std::int64_t scoring_rows);

}  // namespace fastkv::cpu
