// Scores of a layer's keys and what is done with them: window softmax sums, pooling, head reduction, top-k.
#pragma once

#include <memory>

#include "backend/cpu/attention.hpp"
#include "backend/cpu/handles.hpp"
#include "runtime/parallel.hpp"

namespace fastkv::cpu {

/// Everything here runs on `team`; float32 throughout.
struct ScoreContext {
  const Arithmetic& arithmetic;
  const AttentionShape& shape;
  ThreadTeam& team;
  RunControl& control;
  Buffer& work;  ///< grows: a layer's fresh pages would cost more than their contents
};

/// S[h, j], j < n − drop (spec/methods.md 0.2).
std::unique_ptr<CpuScores> window_scores(const ScoreContext& context, const CpuLayerState& state, std::int64_t window,
                                         std::int64_t drop);
/// Bytes window_scores() takes for a layer of n rows.
std::size_t window_score_bytes(const AttentionShape& shape, std::int64_t window, std::int64_t n);

/// P (0.3).
std::unique_ptr<CpuScores> pool(ThreadTeam& team, const CpuScores& scores, Pooling pooling, int kernel);
std::unique_ptr<CpuScores> reduce_heads(ThreadTeam& team, const CpuScores& scores, int groups, GroupReduce reduce);
std::unique_ptr<CpuSelection> top_k(ThreadTeam& team, const CpuScores& scores, std::int64_t n, std::int64_t k,
                                    std::int64_t first, std::int64_t last);
double coverage(const CpuScores& raw, const CpuSelection& keep, std::int64_t window);

}  // namespace fastkv::cpu
