// Whoever finishes the last chunk of a head joins them: threads meet once for all items of a layer.
#include "backend/cpu/decode_attention.hpp"

#include <algorithm>
#include <cmath>

#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

// Keys of one item: so many, or where that made more than kMostChunks items of a head, a multiple of them. It depends
// on the head's rows alone and chunks are joined in order, so that the result does not depend on the threads. An item's
// begin costs 1 us: with 4096 keys instead of 1024 attention took 5 % less of 8192 rows.
constexpr std::int64_t kChunk = 1024, kMostChunks = 8;
static_assert(kChunk % simd::kCacheRows == 0);
std::int64_t chunk_of(std::int64_t rows) { return ceil_div(rows, kChunk * kMostChunks) * kChunk; }
std::int64_t chunks_of(std::int64_t rows) { return ceil_div(rows, chunk_of(rows)); }

}  // namespace

DecodeAttention::DecodeAttention(const simd::KernelTable& kernels, const AttentionShape& shape, bool bf16,
                                 ThreadTeam& team, StageClocks& clocks)
    : kernels_(kernels), shape_(shape), bf16_(bf16), team_(team), clocks_(clocks), work_(team) {}

void DecodeAttention::begin(std::vector<StepRow> rows, int layers) {
  rows_ = std::move(rows);
  std::int64_t longest = 0;
  for (const StepRow& row : rows_)
    for (int l = 0; l < layers; ++l)
      for (int h = 0; h < row.cache(l).heads(); ++h) longest = std::max(longest, row.cache(l).length(h));
  chunks_ = std::min(ceil_div(longest, kChunk), kMostChunks);  // of any head up to the longest
  const std::size_t heads = rows_.size() * std::size_t(shape_.heads), partials = heads * std::size_t(chunks_);
  cos_sin_.resize(rows_.size() * std::size_t(shape_.d));
  if (partials > maximum_.size()) {
    weighted_.resize(partials * std::size_t(shape_.d));
    maximum_.resize(partials);
    sum_.resize(partials);
  }
  if (heads > counters_) {
    done_ = std::make_unique<std::atomic<std::int64_t>[]>(heads);
    counters_ = heads;
  }
  // A step that was stopped leaves them anywhere.
  for (std::size_t i = 0; i < heads; ++i) done_[i].store(0, std::memory_order_relaxed);
}

void DecodeAttention::append(int thread, int layer, NarrowLayer& narrow) {
  const std::int64_t d = shape_.d, kv_dim = shape_.heads_kv * d;
  const int group = shape_.group();
  const Range mine = split(std::int64_t(rows_.size()) * shape_.heads_kv, team_.size(), thread);
  for (std::int64_t item = mine.begin; item < mine.end; ++item) {
    const std::int64_t row = item / shape_.heads_kv, kv = item % shape_.heads_kv;
    const StepRow& step = rows_[std::size_t(row)];
    const CpuLayerCache& cache = step.cache(layer);
    const float* turn = cos_sin_.data() + row * d;
    float* key = narrow.k() + row * kv_dim + kv * d;
    kernels_.rope(key, turn, 1, shape_.d);
    kernels_.rope(narrow.q() + (row * shape_.heads + kv * group) * d, turn, group, shape_.d);
    const int sharing = cache.heads() / shape_.heads_kv;
    for (int h = int(kv) * sharing; h < (int(kv) + 1) * sharing; ++h)
      cache.write_row(h, step.visible(layer, h) - 1, key, narrow.v() + row * kv_dim + kv * d);
  }
}

void DecodeAttention::attend(int layer, std::int64_t row, int stored, std::int64_t chunk, const NarrowLayer& narrow) {
  const StepRow& step = rows_[std::size_t(row)];
  const CpuLayerCache& cache = step.cache(layer);
  const std::int64_t d = shape_.d, end = step.visible(layer, stored), most = chunk_of(end), first = chunk * most;
  const int group = readers(cache);
  const std::size_t at = partial(row, stored, chunk, group);
  simd::CachedRows rows{cache.k_type(), cache.v_type(), cache.blocks(stored, first), std::min(end - first, most),
                        shape_.d};
  // the thread's next item, most likely: the head's next chunk, which lies behind this one, or the next head's first
  if (first + most >= end && stored + 1 < cache.heads()) rows.next = cache.blocks(stored + 1, 0);
  const auto attend_rows = bf16_ ? kernels_.attend_rows_bf16 : kernels_.attend_rows;
  attend_rows(rows, narrow.q() + (row * shape_.heads + stored * group) * d, group, shape_.scale,
              weighted_.data() + std::int64_t(at) * d, maximum_.data() + at, sum_.data() + at);
}

void DecodeAttention::combine(int layer, std::int64_t row, int stored, NarrowLayer& narrow) {
  const StepRow& step = rows_[std::size_t(row)];
  const int group = readers(step.cache(layer));
  const std::int64_t d = shape_.d, used = chunks_of(step.visible(layer, stored));
  const std::size_t first = partial(row, stored, 0, group);
  // o = Σ_c exp(m_c − m)·o_c / Σ_c exp(m_c − m)·l_c
  for (int g = 0; g < group; ++g) {
    const auto at = [&](std::int64_t c) { return first + std::size_t(c * group + g); };
    float max = -INFINITY, total = 0;
    for (std::int64_t c = 0; c < used; ++c) max = std::max(max, maximum_[at(c)]);
    float* o = narrow.attention() + (row * shape_.heads + stored * group + g) * d;
    std::fill_n(o, d, 0.0f);
    for (std::int64_t c = 0; c < used; ++c) {
      const float weight = std::exp(maximum_[at(c)] - max);
      total += weight * sum_[at(c)];
      kernels_.axpy(weight, weighted_.data() + at(c) * std::size_t(d), d, o);
    }
    kernels_.scale(o, 1.0f / total, d);
  }
}

void DecodeAttention::run(int thread, int layer, NarrowLayer& narrow) {
  StageWatch& watch = clocks_[thread];
  append(thread, layer, narrow);
  watch.lap(Stage::rest);
  team_.barrier();
  watch.start();
  int most = 0;  // stored heads of a sequence
  for (const StepRow& row : rows_) most = std::max(most, row.cache(layer).heads());
  const std::int64_t items = std::int64_t(rows_.size()) * most * chunks_;
  for (std::int64_t item; (item = work_.next(thread, items)) >= 0;) {
    const std::int64_t row = item / (most * chunks_), chunk = item % chunks_;
    const int stored = int(item / chunks_ % most);
    const StepRow& step = rows_[std::size_t(row)];
    if (stored >= step.cache(layer).heads()) continue;
    const std::int64_t used = chunks_of(step.visible(layer, stored));
    if (chunk >= used) continue;
    attend(layer, row, stored, chunk, narrow);
    // Release: hands on this chunk's results. Acquire: the last one takes those of all.
    std::atomic<std::int64_t>& done = done_[std::size_t(row * shape_.heads + stored)];
    if (done.fetch_add(1, std::memory_order_acq_rel) != used - 1) continue;
    done.store(0, std::memory_order_relaxed);
    combine(layer, row, stored, narrow);
  }
  watch.lap(Stage::attention);
  team_.barrier();
  watch.start();
  work_.reset(thread);
}

}  // namespace fastkv::cpu
