// The window's attention over all keys without an n x n matrix, and selection by score.
#include "backend/cpu/scores.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

constexpr std::int64_t kChunk = 1024;  // keys a thread takes at a time

std::unique_ptr<CpuScores> make_scores(int heads, std::int64_t n) {
  auto scores = std::make_unique<CpuScores>();
  scores->heads = heads;
  scores->n = n;
  scores->s = Array<float>(std::size_t(heads) * std::size_t(n), "scores");
  return scores;
}

// NaN (a broken model) ranks last, so that the order stays total.
float rank(float score) { return score == score ? score : -std::numeric_limits<float>::infinity(); }

}  // namespace

std::size_t window_score_bytes(const AttentionShape& shape, std::int64_t window, std::int64_t n) {
  return std::size_t(shape.heads) * (std::size_t(window) + 3) * std::size_t(round_up(n, simd::kLanes)) * sizeof(float);
}

std::unique_ptr<CpuScores> window_scores(const ScoreContext& context, const CpuLayerState& state, std::int64_t window,
                                         std::int64_t drop) {
  const simd::KernelTable& kt = *context.arithmetic.kernels;
  const int heads = context.shape.heads, group = context.shape.group(), d = context.shape.d;
  const std::int64_t n = state.n, n16 = round_up(n, simd::kLanes);
  check(window >= 1 && window <= state.score_rows && drop <= n, ErrorCode::internal, "window_scores: ", window,
        " rows asked, ", state.score_rows, " kept");
  Array<float> z(std::size_t(heads) * std::size_t(window) * std::size_t(n16), "window scores");  // [H][w][n16]
  Array<float> inverse_sum(std::size_t(heads) * std::size_t(window), "window scores");
  auto scores = make_scores(heads, n - drop);

  const std::int64_t chunks = (n + kChunk - 1) / kChunk;
  WorkQueue dots(context.shape.heads_kv * chunks), rows(heads * window), sums(heads * chunks);
  context.team.run([&](int thread) {
    // z[h, a, j] = q_a · k_j, sixteen keys at a time for the G heads that share them
    alignas(64) float panel[kMaxHeadDim * simd::kLanes];  // [d][16]
    const std::int64_t score_ld = std::int64_t(heads) * d, first_row = state.score_rows - window;
    for (std::int64_t item; (item = dots.next()) >= 0 && !context.control.stopping();) {
      const std::int64_t head = item / chunks, begin = item % chunks * kChunk, end = std::min(n, begin + kChunk);
      for (std::int64_t j = begin; j < end; j += simd::kLanes) {
        kt.pack_keys_f32(state.k.data() + (head * n + j) * d, d, int(std::min<std::int64_t>(simd::kLanes, end - j)), d,
                         panel);
        for (std::int64_t h = head * group; h < (head + 1) * group; ++h)
          kt.gemm_f32(window, d, state.score_q.data() + first_row * score_ld + h * d, score_ld, panel, 1,
                      z.data() + h * window * n16 + j, n16, false);
      }
    }
    context.team.barrier();
    // A = softmax over all n columns, causal inside the window: row a sees keys 0 .. n − w + a
    for (std::int64_t item; (item = rows.next()) >= 0 && !context.control.stopping();) {
      const std::int64_t visible = n - window + item % window + 1;
      float* row = z.data() + item * n16;
      const float max = context.shape.scale * kt.row_max(row, visible);
      inverse_sum[std::size_t(item)] = 1.0f / kt.exp_sum(row, visible, context.shape.scale, max);
      std::fill(row + visible, row + n16, 0.0f);
    }
    context.team.barrier();
    // S[h, j] = Σ_a A[h, a, j]
    for (std::int64_t item; (item = sums.next()) >= 0 && !context.control.stopping();) {
      const std::int64_t h = item / chunks, begin = item % chunks * kChunk, end = std::min(n - drop, begin + kChunk);
      for (std::int64_t a = 0; a < window && begin < end; ++a)
        kt.axpy(inverse_sum[std::size_t(h * window + a)], z.data() + (h * window + a) * n16 + begin, end - begin,
                scores->row(int(h)) + begin);
    }
    if (thread == 0) context.control.poll();
  });
  context.control.throw_if_stopped();
  return scores;
}

std::unique_ptr<CpuScores> pool(ThreadTeam& team, const CpuScores& scores, Pooling pooling, int kernel) {
  auto out = make_scores(scores.heads, scores.n);
  const std::int64_t n = scores.n, half = kernel / 2;
  WorkQueue heads(scores.heads);
  team.run([&](int) {
    for (std::int64_t h; (h = heads.next()) >= 0;) {
      const float* s = scores.row(int(h));
      float* p = out->row(int(h));
      std::copy(s, s + n, p);
      for (std::int64_t shift = 1; shift <= std::min(half, n - 1); ++shift) {
        if (pooling == Pooling::max) {
          for (std::int64_t j = 0; j + shift < n; ++j) p[j] = std::max(p[j], s[j + shift]);
          for (std::int64_t j = shift; j < n; ++j) p[j] = std::max(p[j], s[j - shift]);
        } else {
          for (std::int64_t j = 0; j + shift < n; ++j) p[j] += s[j + shift];
          for (std::int64_t j = shift; j < n; ++j) p[j] += s[j - shift];
        }
      }
      if (pooling == Pooling::avg)  // zeros padded and counted: the divisor is always κ
        for (std::int64_t j = 0; j < n; ++j) p[j] /= float(kernel);
    }
  });
  return out;
}

std::unique_ptr<CpuScores> reduce_heads(ThreadTeam& team, const CpuScores& scores, int groups, GroupReduce reduce) {
  auto out = make_scores(groups, scores.n);
  const std::int64_t n = scores.n, chunks = (n + kChunk - 1) / kChunk;
  const int size = scores.heads / groups;
  WorkQueue items(groups * chunks);
  team.run([&](int) {
    for (std::int64_t item; (item = items.next()) >= 0;) {
      const int g = int(item / chunks);
      const std::int64_t begin = item % chunks * kChunk, end = std::min(n, begin + kChunk);
      float* to = out->row(g);
      std::copy(scores.row(g * size) + begin, scores.row(g * size) + end, to + begin);
      for (int h = g * size + 1; h < (g + 1) * size; ++h) {
        const float* from = scores.row(h);
        for (std::int64_t j = begin; j < end; ++j)
          to[j] = reduce == GroupReduce::sum ? to[j] + from[j] : std::max(to[j], from[j]);
      }
    }
  });
  return out;
}

std::unique_ptr<CpuSelection> top_k(ThreadTeam& team, const CpuScores& scores, std::int64_t n, std::int64_t k,
                                    std::int64_t first, std::int64_t last) {
  const std::int64_t free_begin = first, free_end = n - last;  // rows that compete
  const std::int64_t wanted = k - first - last;
  check(k <= n && wanted >= 0 && free_end <= scores.n && free_begin <= free_end, ErrorCode::internal, "top_k: ", k,
        " of ", n, " rows, first ", first, ", last ", last, ", ", scores.n, " scored");
  auto out = std::make_unique<CpuSelection>();
  out->heads = scores.heads;
  out->rows.resize(std::size_t(scores.heads));
  WorkQueue heads(scores.heads);
  team.run([&](int) {
    std::vector<std::int32_t> order(std::size_t(free_end - free_begin));
    for (std::int64_t h; (h = heads.next()) >= 0;) {
      const float* s = scores.row(int(h));
      std::iota(order.begin(), order.end(), std::int32_t(free_begin));
      if (wanted > 0 && wanted < std::int64_t(order.size()))
        std::nth_element(order.begin(), order.begin() + wanted - 1, order.end(), [s](std::int32_t a, std::int32_t b) {
          const float x = rank(s[a]), y = rank(s[b]);
          return x != y ? x > y : a < b;
        });
      auto& rows = out->rows[std::size_t(h)];
      rows.resize(std::size_t(k));
      std::iota(rows.begin(), rows.begin() + first, 0);
      std::copy_n(order.begin(), wanted, rows.begin() + first);
      std::sort(rows.begin() + first, rows.begin() + first + wanted);
      std::iota(rows.begin() + first + wanted, rows.end(), std::int32_t(free_end));
    }
  });
  return out;
}

double coverage(const CpuScores& raw, const CpuSelection& keep, std::int64_t window) {
  double sum = 0;
  for (int h = 0; h < raw.heads; ++h) {
    const float* s = raw.row(h);
    double scored = 0, kept = 0;
    for (std::int64_t j = 0; j < raw.n; ++j) scored += s[j];
    for (std::int32_t j : keep.rows[std::size_t(h) * std::size_t(keep.heads) / std::size_t(raw.heads)])
      if (j < raw.n) kept += s[j];
    sum += (kept + double(window) - scored) / double(window);
  }
  return sum / raw.heads;
}

}  // namespace fastkv::cpu
