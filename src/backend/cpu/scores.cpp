// Attention of a few rows over all keys without an n x n matrix, and selection by score.
#include "backend/cpu/scores.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

constexpr std::int64_t kChunk = 1024;  // keys a thread takes at a time
constexpr std::int64_t kKeys = 64;     // of which so many are multiplied together, a multiple of 16
constexpr std::size_t kSpare = 3;      // arrays of a layer: raw scores, pooled, joined

constexpr std::int64_t kFewRows = 64;  // so many scoring rows have their weights stored, [H][rows][n]

// Scores of few rows: the dot products are computed once and stored.
void few_row_scores(const ScoreContext& context, const CpuLayerState& state, const ColumnScores& wanted,
                    CpuScores& scores) {
  const simd::KernelTable& kt = *context.arithmetic.kernels;
  const int heads = context.shape.heads, group = context.shape.group(), d = context.shape.d;
  const std::int64_t n = state.n, n16 = round_up(n, simd::kLanes), window = wanted.rows, head_rows = group * window;
  const std::int64_t chunks = ceil_div(n, kChunk);
  const std::int64_t all_rows = heads * window, own_floats = round_up((head_rows + kKeys) * d, simd::kLanes);
  const std::int64_t stats = round_up(all_rows * chunks, simd::kLanes);
  const std::size_t bytes = std::size_t(all_rows * n16 + 2 * stats + context.team.size() * own_floats) * sizeof(float);
  if (context.memory->work.bytes() < bytes) {
    context.memory->work = Buffer();
    context.memory->work = Buffer(bytes, "window scores", context.memory->huge_pages);
  }
  float* const z = context.memory->work.as<float>();  // [H][w][n16]
  // of each row's chunks: the maximum and the sum of exponentials below it, then the factor of the whole row's softmax
  float *const maxima = z + all_rows * n16, *const sums = maxima + stats, *const own = sums + stats;
  SharedWork dots(context.team), rows(context.team), columns(context.team);
  context.team.run([&](int thread) {
    // e[h, a, j] = exp(scale · q_a · k_j − maximum of the chunk)
    float *panels = own + thread * own_floats, *q = panels + kKeys * d;  // [4][d][16], [G·w][d]
    const std::int64_t score_ld = std::int64_t(heads) * d, first_row = state.query_rows - window;
    for (std::int64_t item;
         (item = dots.next(thread, context.shape.heads_kv * chunks)) >= 0 && !context.control.stopping();) {
      const std::int64_t head = item / chunks, chunk = item % chunks, begin = chunk * kChunk;
      const std::int64_t end = std::min(n, begin + kChunk), row0 = head * head_rows;
      for (std::int64_t r = 0; r < head_rows; ++r)
        std::copy_n(state.kv.q.data() + (first_row + r % window) * score_ld + (head * group + r / window) * d, d,
                    q + r * d);
      for (std::int64_t j = begin; j < end; j += kKeys) {
        const std::int64_t count = ceil_div(std::min<std::int64_t>(kKeys, end - j), simd::kLanes);
        for (std::int64_t p = 0; p < count; ++p) {
          const std::int64_t key = j + p * simd::kLanes;
          kt.pack_keys_f32(state.kv.k.data() + (head * n + key) * d, d,
                           int(std::min<std::int64_t>(simd::kLanes, end - key)), d, panels + p * simd::kLanes * d);
        }
        kt.gemm_f32(head_rows, d, q, d, panels, count, z + row0 * n16 + j, n16, false);
      }
      for (std::int64_t r = row0; r < row0 + head_rows; ++r) {
        const std::int64_t seen = std::clamp<std::int64_t>(seen_keys(wanted, n, r % window) - begin, 0, end - begin);
        float* e = z + r * n16 + begin;
        const float max = context.shape.scale * kt.row_max(e, seen);
        maxima[r * chunks + chunk] = max;
        sums[r * chunks + chunk] = kt.exp_sum(e, seen, context.shape.scale, max);
        std::fill(e + seen, e + (end - begin), 0.0f);
      }
    }
    context.team.barrier();
    for (std::int64_t r; (r = rows.next(thread, heads * window)) >= 0 && !context.control.stopping();) {
      float *max = maxima + r * chunks, *sum = sums + r * chunks;
      const float top = *std::max_element(max, max + chunks);
      float total = 0;
      for (std::int64_t c = 0; c < chunks; ++c) total += sum[c] * (max[c] = std::exp(max[c] - top));
      for (std::int64_t c = 0; c < chunks; ++c) sum[c] = row_weight(wanted, r % window) * max[c] / total;
    }
    context.team.barrier();
    // S[h, j] = Σ_a λ_a A[h, a, j]
    for (std::int64_t item; (item = columns.next(thread, heads * chunks)) >= 0 && !context.control.stopping();) {
      const std::int64_t h = item / chunks, chunk = item % chunks, begin = chunk * kChunk;
      const std::int64_t end = std::min(scores.n, begin + kChunk);
      for (std::int64_t r = h * window; r < (h + 1) * window && begin < end; ++r)
        kt.axpy(sums[r * chunks + chunk], z + r * n16 + begin, end - begin, scores.row(int(h)) + begin);
    }
    if (thread == 0) context.control.poll();
  });
}

}  // namespace

CpuScores::CpuScores(int h, std::int64_t rows, std::shared_ptr<ScoreMemory> memory) : home(std::move(memory)) {
  heads = h, n = rows;
  const std::size_t size = std::size_t(heads) * std::size_t(n);
  auto& spare = home->spare;
  spare.reserve(kSpare);  // the destructor must not throw
  const auto found = std::find_if(spare.begin(), spare.end(), [&](const auto& array) { return array.size() == size; });
  if (found == spare.end()) {
    s = Array<float>(size, "scores", home->huge_pages);
    return;
  }
  s = std::move(*found);
  spare.erase(found);
  std::fill_n(s.data(), size, 0.0f);
}

CpuScores::~CpuScores() {
  auto& spare = home->spare;
  if (spare.size() == kSpare) spare.erase(spare.begin());
  spare.push_back(std::move(s));
}

std::size_t score_bytes(const AttentionShape& shape, int threads, std::int64_t rows, std::int64_t n) {
  const std::size_t columns = std::size_t(round_up(n, simd::kLanes)), heads = std::size_t(shape.heads);
  const std::size_t queries = heads * std::size_t(query_rows(n, rows) * shape.d) * sizeof(float);
  const std::size_t scores = 3 * heads * columns * sizeof(float);  // raw, pooled, joined
  if (rows > kFewRows) return queries + scores + column_sum_bytes(shape, threads, rows);
  return queries + scores +
         heads * std::size_t(rows) * (columns + std::size_t(2 * ceil_div(n, kChunk))) * sizeof(float);
}

std::unique_ptr<CpuScores> column_scores(const ScoreContext& context, const CpuLayerState& state,
                                         const ColumnScores& wanted) {
  check(wanted.rows >= 1 && wanted.rows <= state.query_rows && wanted.drop <= state.n, ErrorCode::internal,
        "column_scores: ", wanted.rows, " rows asked, ", state.query_rows, " kept");
  auto scores = std::make_unique<CpuScores>(context.shape.heads, state.n - wanted.drop, context.memory);
  if (wanted.rows > kFewRows)
    column_sums(context, state, wanted, *scores);
  else
    few_row_scores(context, state, wanted, *scores);
  context.control.throw_if_stopped();
  return scores;
}

std::unique_ptr<CpuScores> last_row_logits(const ScoreContext& context, const CpuLayerState& state) {
  const simd::KernelTable& kt = *context.arithmetic.kernels;
  const int group = context.shape.group(), d = context.shape.d;
  const std::int64_t n = state.n, chunks = ceil_div(n, kChunk);
  check(state.query_rows >= 1, ErrorCode::internal, "last_row_logits: no query row kept");
  auto scores = std::make_unique<CpuScores>(context.shape.heads, n, context.memory);
  const float* q = state.kv.q.data() + (state.query_rows - 1) * context.shape.heads * d;
  SharedWork items(context.team);
  context.team.run([&](int thread) {
    Array<float> panels(std::size_t(kKeys * d), "key panels");
    for (std::int64_t item;
         (item = items.next(thread, context.shape.heads_kv * chunks)) >= 0 && !context.control.stopping();) {
      const std::int64_t head = item / chunks, begin = item % chunks * kChunk, count = std::min(kChunk, n - begin);
      const float* keys = state.kv.k.data() + (head * n + begin) * d;
      for (std::int64_t j = 0; j < count; j += kKeys) {  // into panels that stay in L1
        const std::int64_t rows = std::min(kKeys, count - j);
        for (std::int64_t i = 0; i < rows; i += simd::kLanes)
          kt.pack_keys_f32(keys + (j + i) * d, d, int(std::min<std::int64_t>(simd::kLanes, rows - i)), d,
                           panels.data() + i * d);
        kt.attend_keys(simd::RowType::f32, q + head * group * d, group, panels.data(), rows, d, 1.0f,
                       scores->row(int(head) * group) + begin + j, n);
      }
    }
  });
  context.control.throw_if_stopped();
  return scores;
}

std::unique_ptr<CpuScores> pool(ThreadTeam& team, const CpuScores& scores, Pooling pooling, const PoolWidth& width) {
  auto out = std::make_unique<CpuScores>(scores.heads, scores.n, scores.home);
  const std::int64_t n = scores.n;
  SharedWork heads(team);
  team.run([&](int thread) {
    for (std::int64_t h; (h = heads.next(thread, scores.heads)) >= 0;) {
      const float* s = scores.row(int(h));
      float* p = out->row(int(h));
      std::copy(s, s + n, p);
      // the score `shift` rows further on, the score `shift` rows back
      for (std::int64_t shift = 1; shift <= std::min(width.before, n - 1); ++shift)
        for (std::int64_t j = 0; j + shift < n; ++j)
          p[j] = pooling == Pooling::max ? std::max(p[j], s[j + shift]) : p[j] + s[j + shift];
      for (std::int64_t shift = 1; shift <= std::min(width.after, n - 1); ++shift)
        for (std::int64_t j = shift; j < n; ++j)
          p[j] = pooling == Pooling::max ? std::max(p[j], s[j - shift]) : p[j] + s[j - shift];
      if (pooling == Pooling::avg)  // zeros padded and counted: the divisor is always κ
        for (std::int64_t j = 0; j < n; ++j) p[j] /= float(width.before + width.after + 1);
    }
  });
  return out;
}

std::unique_ptr<CpuScores> reduce_heads(ThreadTeam& team, const CpuScores& scores, int groups, GroupReduce reduce) {
  auto out = std::make_unique<CpuScores>(groups, scores.n, scores.home);
  const std::int64_t n = scores.n, chunks = ceil_div(n, kChunk);
  const int size = scores.heads / groups;
  SharedWork items(team);
  team.run([&](int thread) {
    for (std::int64_t item; (item = items.next(thread, groups * chunks)) >= 0;) {
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

std::unique_ptr<CpuSelection> top_k(ThreadTeam& team, const CpuScores& scores, std::int64_t n,
                                    const std::vector<std::int64_t>& k, std::int64_t first, std::int64_t last) {
  const auto [free_begin, free_end] = competing_rows(n, first, last);
  check(k.size() == 1 || k.size() == std::size_t(scores.heads), ErrorCode::internal, "top_k: ", k.size(),
        " numbers for ", scores.heads, " heads");
  for (std::int64_t one : k)
    check(one <= n && one >= first + last && free_end <= scores.n && free_begin <= free_end, ErrorCode::internal,
          "top_k: ", one, " of ", n, " rows, first ", first, ", last ", last, ", ", scores.n, " scored");
  auto out = std::make_unique<CpuSelection>();
  out->heads = scores.heads;
  out->rows.resize(std::size_t(scores.heads));
  SharedWork heads(team);
  team.run([&](int thread) {
    std::vector<std::uint64_t> order(std::size_t(free_end - free_begin));
    for (std::int64_t h; (h = heads.next(thread, scores.heads)) >= 0;) {
      const float* s = scores.row(int(h));
      const std::int64_t kept = k[k.size() == 1 ? 0 : std::size_t(h)], wanted = kept - first - last;
      for (std::int64_t j = free_begin; j < free_end; ++j)
        order[std::size_t(j - free_begin)] = score_order(std::bit_cast<std::uint32_t>(s[j]), j);
      if (wanted > 0 && wanted < std::int64_t(order.size()))
        std::nth_element(order.begin(), order.begin() + wanted - 1, order.end());
      auto& rows = out->rows[std::size_t(h)];
      rows.resize(std::size_t(kept));
      std::iota(rows.begin(), rows.begin() + first, 0);
      for (std::int64_t i = 0; i < wanted; ++i) rows[std::size_t(first + i)] = std::int32_t(order[std::size_t(i)]);
      std::sort(rows.begin() + first, rows.begin() + first + wanted);
      std::iota(rows.begin() + first + wanted, rows.end(), std::int32_t(free_end));
    }
  });
  return out;
}

double coverage(const CpuScores& raw, const CpuSelection& keep, std::int64_t scoring_rows) {
  double sum = 0;
  for (int h = 0; h < raw.heads; ++h) {
    const float* s = raw.row(h);
    double scored = 0, kept = 0;
    for (std::int64_t j = 0; j < raw.n; ++j) scored += s[j];
    for (std::int32_t j : keep.rows[std::size_t(shared_head(h, raw.heads, keep.heads))])
      if (j < raw.n) kept += s[j];
    sum += (kept + double(scoring_rows) - scored) / double(scoring_rows);
  }
  return sum / raw.heads;
}

}  // namespace fastkv::cpu
