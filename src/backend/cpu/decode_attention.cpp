// Whoever finishes the last chunk of a head joins them: threads meet once for all items of a layer.
#include "backend/cpu/decode_attention.hpp"

#include <algorithm>
#include <cmath>

#include "core/round.hpp"

namespace fastkv::cpu {
namespace {

// Keys of one item. Fixed, and chunks are joined in order, so that the result does not depend on the threads. Every
// change from keys to values and back costs the run-ahead of prefetchers: with 512, attention took 4 % longer at 8192
// rows, 10 % at 840.
constexpr std::int64_t kChunk = 1024;
static_assert(kChunk % simd::kLanes == 0);

constexpr int kParts = 4;  // of a chunk's memory fetched ahead, between which other work hides the fetching
constexpr std::size_t kFetched = 4096;

// Fetches part `part` of the first kFetched bytes of those that a kernel reads of n rows, 16 of them `bytes`.
void fetch_rows(const std::byte* rows, std::size_t bytes, std::int64_t n, int part) {
  static_assert(simd::kKeyStreams == 2 && simd::kValueStreams == 2);
  const std::size_t run = std::size_t(ceil_div(n, 2 * simd::kLanes)) * bytes;
  const std::size_t at = std::size_t(part) * (kFetched / kParts);
  const std::byte* from = rows + at / (kFetched / 2) * run + at % (kFetched / 2);
  for (std::size_t b = 0; b < kFetched / kParts; b += 64) __builtin_prefetch(from + b);
}

}  // namespace

DecodeAttention::DecodeAttention(const simd::KernelTable& kernels, const AttentionShape& shape, ThreadTeam& team,
                                 StageClocks& clocks)
    : kernels_(kernels),
      shape_(shape),
      team_(team),
      clocks_(clocks),
      work_(team),
      scores_(std::size_t(team.size()) * std::size_t(shape.group() * kChunk)) {}

void DecodeAttention::begin(std::vector<StepRow> rows, int layers) {
  rows_ = std::move(rows);
  std::int64_t longest = 0;
  for (const StepRow& row : rows_)
    for (int l = 0; l < layers; ++l)
      for (int h = 0; h < row.cache(l).heads(); ++h) longest = std::max(longest, row.cache(l).length(h));
  chunks_ = ceil_div(longest, kChunk);
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

void DecodeAttention::attend(int thread, int layer, std::int64_t row, int stored, std::int64_t chunk,
                             const NarrowLayer& narrow) {
  const StepRow& step = rows_[std::size_t(row)];
  const CpuLayerCache& cache = step.cache(layer);
  const std::int64_t d = shape_.d, first = chunk * kChunk, end = step.visible(layer, stored),
                     n = std::min(end - first, kChunk);
  const int group = readers(cache);
  const std::size_t at = partial(row, stored, chunk, group);
  const std::byte* values = cache.value(stored, first);
  float *s = scores_.data() + std::int64_t(thread) * shape_.group() * kChunk, *max = maximum_.data() + at;
  kernels_.attend_keys(cache.k_type(), narrow.q() + (row * shape_.heads + stored * group) * d, group,
                       cache.keys(stored, first), n, shape_.d, shape_.scale, s, kChunk);
  for (int g = 0; g < std::max(group, kParts); ++g) {
    if (g < kParts) fetch_rows(values, cache.v_stride() * simd::kLanes, n, g);
    if (g < group) max[g] = kernels_.row_max(s + g * kChunk, n);
  }
  float* o = weighted_.data() + std::int64_t(at) * d;
  std::fill_n(o, group * d, 0.0f);
  kernels_.attend_values(cache.v_type(), s, kChunk, group, max, values, cache.v_stride(), n, shape_.d, o,
                         sum_.data() + at);
  // the thread's next item, most likely: the head's next chunk or the next head's first
  const bool same = first + kChunk < end;
  if (!same && stored + 1 == cache.heads()) return;
  const int next = same ? stored : stored + 1;
  const std::int64_t from = same ? first + kChunk : 0, count = std::min(step.visible(layer, next) - from, kChunk);
  for (int part = 0; count > 0 && part < kParts; ++part)
    fetch_rows(cache.keys(next, from), cache.panel_bytes(), count, part);
}

void DecodeAttention::combine(int layer, std::int64_t row, int stored, NarrowLayer& narrow) {
  const StepRow& step = rows_[std::size_t(row)];
  const int group = readers(step.cache(layer));
  const std::int64_t d = shape_.d, used = ceil_div(step.visible(layer, stored), kChunk);
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
    const std::int64_t used = ceil_div(step.visible(layer, stored), kChunk);
    if (chunk >= used) continue;
    attend(thread, layer, row, stored, chunk, narrow);
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
