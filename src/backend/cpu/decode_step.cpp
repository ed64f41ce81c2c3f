// One decode step: all layers and the output head inside one parallel region.
#include <algorithm>
#include <cmath>
#include <utility>

#include "backend/cpu/cpu_backend.hpp"
#include "core/arg_max.hpp"
#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

// Keys of one attention item. Fixed, and items are combined in order, so that the result does not depend on the
// threads.
constexpr std::int64_t kChunk = 512;

// One row of the step.
struct Row {
  const SequenceStep* sequence;
  std::int64_t ahead;  // rows of the same step after this one, which it must not see
};

CpuLayerCache& cache_of(const Row& row, int layer) {
  return static_cast<CpuLayerCache&>(*row.sequence->layers[std::size_t(layer)]);
}

constexpr int kParts = 4;  // of a chunk's memory fetched ahead, between which other work hides the fetching
constexpr std::size_t kFetched = 4096;

/// Index of the largest of logits [vocab] but those of `banned`, which are −∞ meanwhile.
std::int32_t best_token(float* logits, std::size_t vocab, std::span<const std::int32_t> banned) {
  check_logits({logits, vocab});
  std::vector<float> kept;
  for (const std::int32_t id : banned) kept.push_back(std::exchange(logits[id], -INFINITY));
  const std::int32_t best = arg_max({logits, vocab});
  for (std::size_t i = banned.size(); i-- > 0;) logits[banned[i]] = kept[i];
  return best;
}

// Fetches part `part` of the first kFetched bytes of those that a kernel reads in `streams` runs from n rows.
void fetch(const std::byte* rows, std::size_t stride, std::int64_t n, int streams, int part) {
  const std::size_t run = std::size_t(ceil_div(n, streams)) * stride, of_run = kFetched / std::size_t(streams);
  const std::size_t at = std::size_t(part) * (kFetched / kParts);
  const std::byte* from = rows + at / of_run * run + at % of_run;
  for (std::size_t b = 0; b < kFetched / kParts; b += 64) __builtin_prefetch(from + b);
}

}  // namespace

void CpuBackend::decode_step(std::span<const SequenceStep> sequences, const StepOutput& out, RunControl& control) {
  std::vector<Row> rows;
  std::vector<std::int32_t> positions, tokens;
  for (const SequenceStep& s : sequences) {
    check(s.layers.size() == std::size_t(config_.n_layer) && !s.tokens.empty(), ErrorCode::internal,
          "decode_step: ", s.layers.size(), " layers, ", s.tokens.size(), " tokens");
    for (std::size_t i = 0; i < s.tokens.size(); ++i) {
      rows.push_back({&s, std::int64_t(s.tokens.size() - 1 - i)});
      positions.push_back(std::int32_t(s.first_position + std::int64_t(i)));
      tokens.push_back(s.tokens[i]);
    }
    for (const auto& layer : s.layers) static_cast<CpuLayerCache&>(*layer).append(std::int64_t(s.tokens.size()));
  }
  const std::int64_t m = std::int64_t(rows.size()), d = shape_.d, q_dim = config_.q_dim(), kv_dim = config_.kv_dim();
  const int heads = shape_.heads, group = shape_.group();
  const simd::KernelTable& kt = *arithmetic_.kernels;
  if (!narrow_ || narrow_->rows() != m)
    narrow_ = std::make_unique<NarrowLayer>(decode_arithmetic_, config_, *team_, *clocks_, LinearUse::decode, m);
  NarrowLayer& narrow = *narrow_;
  std::vector<float> cos_sin(std::size_t(m * d));
  rope_table(positions, cos_sin.data());

  // Attention items of a layer: (row, stored head, chunk of keys); each leaves maximum, sum and weighted values of the
  // query heads that share the stored head.
  std::int64_t longest = 0;
  for (const Row& row : rows)
    for (int l = 0; l < config_.n_layer; ++l)
      for (int h = 0; h < cache_of(row, l).heads(); ++h) longest = std::max(longest, cache_of(row, l).length(h));
  const std::int64_t chunks = ceil_div(longest, kChunk);
  std::vector<float> weighted(std::size_t(m * heads * chunks * d));                  // [row][stored][chunk][reader][d]
  std::vector<float> maximum(std::size_t(m * heads * chunks)), sum(maximum.size());  // [row][head][chunk]
  std::vector<float> scores(std::size_t(team_->size()) * std::size_t(group * kChunk));
  const auto partial_of = [&](std::int64_t row, int head, std::int64_t chunk) {
    return std::size_t((row * heads + head) * chunks + chunk);
  };
  const auto weighted_of = [&](std::int64_t row, int head, std::int64_t chunk, int readers) {
    return weighted.data() + ((row * heads + head / readers * readers) * chunks + chunk * readers + head % readers) * d;
  };
  const auto visible = [&](const Row& row, int layer, int stored) {
    return cache_of(row, layer).length(stored) - row.ahead;
  };

  SharedWork attention_work(*team_);
  const auto attend = [&](int layer, int thread) {
    StageWatch& watch = (*clocks_)[thread];
    const auto meet = [&](Stage stage) {
      watch.lap(stage);
      team_->barrier();
      watch.start();
    };
    // rotate q and k; append k and v, rounded, to every stored head of the key/value head
    const Range mine = split(m * shape_.heads_kv, team_->size(), thread);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t row = item / shape_.heads_kv, kv = item % shape_.heads_kv;
      CpuLayerCache& cache = cache_of(rows[std::size_t(row)], layer);
      float* key = narrow.k() + row * kv_dim + kv * d;
      kt.rope(key, cos_sin.data() + row * d, 1, shape_.d);
      kt.rope(narrow.q() + row * q_dim + kv * group * d, cos_sin.data() + row * d, group, shape_.d);
      const int sharing = cache.heads() / shape_.heads_kv;
      for (int h = int(kv) * sharing; h < (int(kv) + 1) * sharing; ++h) {
        const std::int64_t at = visible(rows[std::size_t(row)], layer, h) - 1;
        kt.encode_row(cache.k_type(), key, shape_.d, cache.key(h, at));
        kt.encode_row(cache.v_type(), narrow.v() + row * kv_dim + kv * d, shape_.d, cache.value(h, at));
      }
    }
    meet(Stage::rest);
    int most = 0;  // stored heads of a sequence
    for (const Row& row : rows) most = std::max(most, cache_of(row, layer).heads());
    for (std::int64_t item; (item = attention_work.next(thread, m * most * chunks)) >= 0;) {
      const std::int64_t row = item / (most * chunks), chunk = item % chunks;
      const int stored = int(item / chunks % most);
      CpuLayerCache& cache = cache_of(rows[std::size_t(row)], layer);
      if (stored >= cache.heads()) continue;
      const int readers = heads / cache.heads();  // query heads that read one stored head: G or 1
      const std::int64_t first = chunk * kChunk, end = visible(rows[std::size_t(row)], layer, stored),
                         n = std::min(end - first, kChunk);
      if (n <= 0) continue;
      float* s = scores.data() + std::int64_t(thread) * group * kChunk;
      const float* q = narrow.q() + row * q_dim + std::int64_t(stored) * readers * d;
      const std::byte* values = cache.value(stored, first);
      kt.attend_keys(cache.k_type(), q, readers, cache.key(stored, first), cache.k_stride(), n, shape_.d, shape_.scale,
                     s, kChunk);
      for (int part = 0, g = 0; part < kParts || g < readers; ++part, ++g) {
        if (part < kParts) fetch(values, cache.v_stride(), n, simd::kValueStreams, part);
        if (g >= readers) continue;
        const std::size_t at = partial_of(row, stored * readers + g, chunk);
        maximum[at] = kt.row_max(s + g * kChunk, n);
        sum[at] = kt.exp_sum(s + g * kChunk, n, 1.0f, maximum[at]);
      }
      float* o = weighted_of(row, stored * readers, chunk, readers);
      std::fill_n(o, readers * d, 0.0f);
      kt.attend_values(cache.v_type(), s, kChunk, readers, values, cache.v_stride(), n, shape_.d, o);
      // the thread's next item, most likely: the head's next chunk or the next head's first
      const bool same = first + kChunk < end;
      if (same || stored + 1 < cache.heads()) {
        const int next = same ? stored : stored + 1;
        const std::int64_t from = same ? first + kChunk : 0;
        const std::int64_t count = std::min(visible(rows[std::size_t(row)], layer, next) - from, kChunk);
        for (int part = 0; count > 0 && part < kParts; ++part)
          fetch(cache.key(next, from), cache.k_stride(), count, simd::kKeyStreams, part);
      }
    }
    meet(Stage::attention);
    attention_work.reset(thread);
    // o = Σ_c exp(m_c − m)·o_c / Σ_c exp(m_c − m)·l_c, chunks in order
    const Range combine = split(m * heads, team_->size(), thread);
    for (std::int64_t item = combine.begin; item < combine.end; ++item) {
      const std::int64_t row = item / heads;
      const int head = int(item % heads);
      const CpuLayerCache& cache = cache_of(rows[std::size_t(row)], layer);
      const std::int64_t n = visible(rows[std::size_t(row)], layer, head * cache.heads() / heads);
      const std::int64_t used = ceil_div(n, kChunk);
      const std::size_t at = partial_of(row, head, 0);
      const float max = kt.row_max(maximum.data() + at, used);
      float total = 0;
      float* o = narrow.attention() + row * q_dim + head * d;
      std::fill_n(o, d, 0.0f);
      for (std::int64_t c = 0; c < used; ++c) {
        const float weight = std::exp(maximum[at + std::size_t(c)] - max);
        total += weight * sum[at + std::size_t(c)];
        kt.axpy(weight, weighted_of(row, head, c, heads / cache.heads()), d, o);
      }
      kt.scale(o, 1.0f / total, d);
    }
    meet(Stage::attention);
  };

  const std::size_t vocab = std::size_t(config_.n_vocab);
  const bool every_row_counts = m == std::int64_t(sequences.size());  // none is before the last of its sequence
  float* logits = out.logits;                                         // [m, V]
  if (!every_row_counts || !logits) {
    logits_.resize(std::size_t(m) * vocab);
    logits = logits_.data();
  }
  for (std::int64_t i = 0; i < m; ++i)
    weights_.token_embd.read_row(tokens[std::size_t(i)], narrow.x() + i * config_.n_embd);
  team_->run([&](int thread) {
    for (int layer = 0; layer < config_.n_layer; ++layer) {
      const LayerWeights& weights = weights_.layers[std::size_t(layer)];
      narrow.project(thread, weights, true);
      attend(layer, thread);
      const bool last = layer + 1 == config_.n_layer;
      narrow.output_and_mlp(
          thread, weights,
          last ? narrow.head(weights_) : narrow.projections(weights_.layers[std::size_t(layer) + 1], true));
      if (thread == 0) control.poll();
    }
    narrow.output_head(thread, weights_, logits);
  });
  control.throw_if_stopped();
  std::int64_t last = -1;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    last += std::int64_t(sequences[s].tokens.size());
    float* row = logits + std::size_t(last) * vocab;
    if (out.logits && out.logits + s * vocab != row) std::copy_n(row, vocab, out.logits + s * vocab);
    if (out.best) out.best[s] = best_token(row, vocab, out.banned);
  }
}

}  // namespace fastkv::cpu
