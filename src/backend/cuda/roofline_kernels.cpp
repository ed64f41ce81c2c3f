// The backend's kernels on buffers of a decoder's sizes, called as a prompt's layer and a token's step call them.
#include <algorithm>
#include <cmath>
#include <memory>

#include "backend/cuda/decode_graph.hpp"
#include "backend/cuda/kernels/attention.hpp"
#include "backend/cuda/kernels/cache.hpp"
#include "backend/cuda/kernels/decode.hpp"
#include "backend/cuda/kernels/rows.hpp"
#include "backend/cuda/kernels/scores.hpp"
#include "backend/cuda/kernels/selection.hpp"
#include "backend/cuda/kernels/stream.hpp"
#include "backend/cuda/roofline.hpp"
#include "core/check.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

using Bound = DeviceKernel::Bound;

// The method's defaults: rows that score, neighbours that share a score, shares of a prompt that go on and that stay.
constexpr std::int64_t kWindow = 8, kPool = 3, kGoOn = 5, kKept = 10;
constexpr std::size_t kAlignment = 256, kSpare = 3 * kAlignment;  // of up to three matrices one behind the other
constexpr int kSmallCalls = 64;      // of a kernel that takes as long as its launch, in one graph
constexpr int kSmallNumbers = 0x30;  // in every byte: finite in every form of weights and cache rows

/// A form of decode's weights.
struct Form {
  WeightForm form;
  const char* name;

  std::size_t bytes(std::int64_t out, std::int64_t in) const { return std::size_t(out * in * group_bytes(form) / 32); }
  bool in_groups() const { return form != WeightForm::bfloat16; }
};
constexpr Form kForms[] = {{WeightForm::bfloat16, "bf16"}, {WeightForm::q8, "q8"}, {WeightForm::q4, "q4"}};

/// What the kernels read and write. Numbers are random where products are made of them.
struct Buffers {
  DeviceArray<bf16> x, w;  ///< inputs and weights; queries and keys, whose float16 numbers the same bits make
  DeviceBuffer out;
  DeviceBuffer stream;  ///< read by kernels that memory bounds, each call further on
  DeviceBuffer work;
  DeviceArray<float2> rope;
  DeviceArray<std::int32_t> gathered;  ///< every fifth row
  DeviceArray<double> inv_freq;
  DeviceArray<StepState> state;  ///< [2], the second moves on
  DeviceArray<std::int32_t> best;
};

class Builder {
 public:
  Builder(cudaStream_t stream, Gemm& gemm, const RooflineSizes& sizes, const DecoderShape& shape,
          std::size_t cache_bytes)
      : stream_(stream),
        gemm_(gemm),
        sizes_(sizes),
        c_(shape),
        attention_{shape.n_head, shape.n_head_kv, shape.head_dim, 1 / std::sqrt(float(shape.head_dim))},
        q_dim_(std::int64_t(shape.n_head) * shape.head_dim),
        kv_dim_(std::int64_t(shape.n_head_kv) * shape.head_dim),
        rows_(*std::max_element(sizes.rows.begin(), sizes.rows.end())),
        keys_(*std::max_element(sizes.keys.begin(), sizes.keys.end())),
        in_cache_(2 * cache_bytes) {
    allocate();
  }

  std::vector<DeviceKernel> all() {
    for (const std::int64_t rows : sizes_.rows) prompt_products(rows);
    for (const std::int64_t keys : sizes_.keys) prompt_attention(keys);
    for (const std::int64_t keys : sizes_.keys) scores(keys);
    prompt_rows();
    for (const Form& form : kForms) token_products(form);
    for (const std::int64_t rows : sizes_.cached) token_attention(rows);
    token_rest();
    b_->stream = DeviceBuffer(stream_, streamed_, "memory that streams");
    check_cuda(cudaMemsetAsync(b_->stream.data(), kSmallNumbers, streamed_, stream_), "memory that streams");
    return std::move(kernels_);
  }

 private:
  void allocate() {
    b_ = std::make_shared<Buffers>();
    const std::int64_t d = c_.n_embd, f = c_.n_ff, queries = std::max({rows_, keys_ / kGoOn, kWindow});
    const std::int64_t widest = std::max({2 * d, 2 * f, 2 * q_dim_, 4 * kv_dim_});  // a row of float32 counts twice
    const auto array = [&](std::int64_t n) { return DeviceArray<bf16>(stream_, std::size_t(n), "numbers"); };
    b_->x = array(std::max({rows_ * widest, queries * q_dim_, keys_ * c_.n_head * 2, std::int64_t(2 * c_.n_vocab)}));
    b_->w = array(std::max({2 * f * d, q_dim_ * d, 2 * kv_dim_ * d, 2 * keys_ * kv_dim_}));
    fill_random(stream_, b_->x.data(), b_->x.size());
    fill_random(stream_, b_->w.data(), b_->w.size());
    const std::int64_t out = std::max({rows_ * widest, queries * q_dim_, keys_ * c_.n_head, std::int64_t(c_.n_vocab)});
    b_->out = DeviceBuffer(stream_, std::size_t(out) * sizeof(float), "outputs");

    const std::int64_t cached = *std::max_element(sizes_.cached.begin(), sizes_.cached.end());
    b_->work = DeviceBuffer(stream_,
                            std::max({column_scores_bytes(attention_, kWindow, keys_),
                                      attention_decode_bytes(attention_, cached), arg_max_bytes(c_.n_vocab)}),
                            "work space");

    b_->rope = DeviceArray<float2>(stream_, std::size_t(rows_ * c_.head_dim / 2), "rotation table");
    check_cuda(cudaMemsetAsync(b_->rope.data(), kSmallNumbers, b_->rope.bytes(), stream_), "rotation table");
    std::vector<std::int32_t> every(std::size_t(keys_ / kGoOn));
    for (std::size_t i = 0; i < every.size(); ++i) every[i] = std::int32_t((i + 1) * kGoOn - 1);
    b_->gathered = to_device<std::int32_t>(stream_, every, "gathered rows");
    const std::vector<double> inv_freq(std::size_t(c_.head_dim / 2), 0.5);
    b_->inv_freq = to_device<double>(stream_, inv_freq, "rotation frequencies");
    b_->state = DeviceArray<StepState>(stream_, 2, "state of a step");
    check_cuda(cudaMemsetAsync(b_->state.data(), 0, b_->state.bytes(), stream_), "state of a step");
    b_->best = DeviceArray<std::int32_t>(stream_, 1, "token");
  }

  void add(std::string name, std::string shape, Bound bound, double work, int calls, std::function<void()> run) {
    kernels_.push_back(
        {std::move(name), std::move(shape), bound, work, calls, [buffers = b_, run = std::move(run)] { run(); }});
  }
  /// A call that touches `bytes`: memory bounds it if the device's cache cannot hold them.
  void add_rows(std::string name, std::string shape, double bytes, std::function<void()> run) {
    const Bound bound = bytes >= double(in_cache_) ? Bound::memory : Bound::cache;
    add(std::move(name), std::move(shape), bound, bytes, 1, std::move(run));
  }
  /// call(0) … call(calls − 1) as one graph: launches cost what they cost in decode.
  void add_graph(std::string name, std::string shape, Bound bound, double work, int calls,
                 std::function<void(int)> call) {
    add(std::move(name), std::move(shape), bound, work, calls,
        [stream = stream_, graph = std::make_shared<DecodeGraph>(), calls, call = std::move(call)] {
          graph->run(stream, {}, [&] {
            for (int i = 0; i < calls; ++i) call(i);
          });
        });
  }
  /// A call that reads `bytes` at the address it is given, each time further on, so that nothing is still in the
  /// device's cache.
  void add_stream(std::string name, std::string shape, std::size_t bytes, std::function<void(std::byte*)> call) {
    const std::size_t step = std::size_t(round_up(std::int64_t(bytes), kAlignment)) + kSpare;
    const int calls = int(std::max<std::size_t>(1, sizes_.stream_bytes / step));
    const std::size_t all = step * std::size_t(calls);
    streamed_ = std::max(streamed_, all);
    add_graph(std::move(name), std::move(shape), all >= in_cache_ ? Bound::memory : Bound::cache, double(bytes), calls,
              [&stream = b_->stream, step, call = std::move(call)](int i) {
                call(static_cast<std::byte*>(stream.data()) + std::size_t(i) * step);
              });
  }

  // ---- of a prompt -------------------------------------------------------------------------------------------------

  void prompt_products(std::int64_t m) {
    const std::int64_t d = c_.n_embd, f = c_.n_ff;
    product("q", m, q_dim_, d, Give::floats);
    product("k and v", m, 2 * kv_dim_, d, Give::floats);
    product("o onto the residual", m, d, q_dim_, Give::sums);
    product("gate and up", m, 2 * f, d, Give::narrow);
    product("down onto the residual", m, d, f, Give::sums);
  }
  enum class Give { narrow, floats, sums };  ///< bfloat16; float32; float32 added to what is there
  void product(const char* name, std::int64_t m, std::int64_t out, std::int64_t in, Give give) {
    add(concat("gemm ", name), concat(m, " x ", in, " x ", out), Bound::products,
        2.0 * double(m) * double(out) * double(in), 1,
        [&gemm = gemm_, x = b_->x.data(), w = b_->w.data(), y = b_->out.data(), m, out, in, give] {
          gemm.expect_rows(m);
          if (give == Give::sums)
            gemm.add_product(x, m, w, nullptr, out, in, static_cast<float*>(y));
          else if (give == Give::floats)
            gemm.multiply(x, m, w, static_cast<const float*>(nullptr), out, in, static_cast<float*>(y));
          else
            gemm.multiply(x, m, w, static_cast<const bf16*>(nullptr), out, in, static_cast<bf16*>(y));
        });
  }

  static const f16* float16(const DeviceArray<bf16>& numbers) { return reinterpret_cast<const f16*>(numbers.data()); }
  std::string heads() const { return concat(c_.n_head, '/', c_.n_head_kv, " heads of ", c_.head_dim); }

  /// The last rows of a prompt, and as many of all rows as go on behind the TSP layer.
  void prompt_attention(std::int64_t n) {
    const std::int64_t m = std::min(rows_, n), first = n - m, some = n / kGoOn;
    const auto *q = float16(b_->x), *k = float16(b_->w), *v = k + n * kv_dim_;
    auto* const out = static_cast<bf16*>(b_->out.data());
    const std::int32_t* const gathered = b_->gathered.data();
    const auto shape = [&](std::int64_t count) { return concat(count, " x ", heads(), ", ", n, " keys"); };
    const double per_key = 4.0 * double(q_dim_);
    add("attention_prefill", shape(m), Bound::products, per_key * double(m) * (double(first) + double(m + 1) / 2), 1,
        [=, s = stream_, a = attention_] { attention_prefill(s, a, q, nullptr, first, m, k, v, n, out); });
    if (some == 0) return;
    add("attention_prefill of gathered rows", shape(some), Bound::products,
        per_key * double(kGoOn) * double(some) * double(some + 1) / 2, 1,
        [=, s = stream_, a = attention_] { attention_prefill(s, a, q, gathered, 0, some, k, v, n, out); });
  }

  /// Scores read each key of a layer, scoring rows being few; what follows works on a number for each key and head.
  void scores(std::int64_t n) {
    const std::int64_t window = std::min(kWindow, n), columns = n - window, kept = columns / kKept;
    if (kept == 0) return;
    const std::string map = concat(c_.n_head, " x ", columns);
    const cudaStream_t s = stream_;
    const f16* const q = float16(b_->x);
    const auto* const in = reinterpret_cast<const float*>(q);
    auto* const out = static_cast<float*>(b_->out.data());
    add_stream("column_scores", concat(window, " x ", heads(), ", ", n, " keys"),
               std::size_t(n * kv_dim_) * sizeof(f16), [=, a = attention_, work = b_->work.data()](std::byte* k) {
                 column_scores(s, a, q, window, reinterpret_cast<const f16*>(k), n, {.rows = window, .drop = window},
                               work, out);
               });
    const double bytes = double(columns) * c_.n_head * sizeof(float);
    const int heads = c_.n_head, groups = c_.n_head_kv;
    add_rows("pool", map, 2 * bytes, [=] { pool(s, in, heads, columns, Pooling::max, {kPool, kPool}, out); });
    add_rows("reduce_heads", map, bytes * (1 + 1.0 / attention_.group()),
             [=] { reduce_heads(s, in, heads, columns, groups, GroupReduce::sum, out); });
    add_rows("top_k", concat(kept, " of ", map), bytes,
             [=, offsets = offsets(heads, kept), counts = counts(heads, kept)] {
               top_k(s, in, heads, columns, columns, counts->data(), offsets->data(), 0, 0,
                     reinterpret_cast<std::int32_t*>(out));
             });
  }
  /// Of `rows` for each head: where they begin, and how many.
  std::shared_ptr<const DeviceArray<std::int64_t>> offsets(int heads, std::int64_t rows) const {
    std::vector<std::int64_t> of;
    for (int h = 0; h < heads; ++h) of.push_back(h * rows);
    return std::make_shared<DeviceArray<std::int64_t>>(to_device<std::int64_t>(stream_, of, "offsets"));
  }
  std::shared_ptr<const DeviceArray<std::int32_t>> counts(int heads, std::int64_t rows) const {
    const auto of = std::vector<std::int32_t>(std::size_t(heads), std::int32_t(rows));
    return std::make_shared<DeviceArray<std::int32_t>>(to_device<std::int32_t>(stream_, of, "numbers of rows"));
  }

  void prompt_rows() {
    const std::int64_t m = rows_, d = c_.n_embd, f = c_.n_ff, kv = kv_dim_;
    const cudaStream_t s = stream_;
    const bf16* const x = b_->x.data();
    const auto* const weight = reinterpret_cast<const float*>(b_->w.data());
    const float2* const rope = b_->rope.data();
    auto* const out = static_cast<bf16*>(b_->out.data());
    const auto shape = [m](std::int64_t width) { return concat(m, " x ", width); };
    const double turns = double(m * c_.head_dim / 2) * sizeof(float2);
    add_rows("rms_norm", shape(d), double(m * d) * (sizeof(float) + sizeof(bf16)),
             [=] { rms_norm(s, reinterpret_cast<const float*>(x), m, int(d), weight, 1e-5f, out); });
    add_rows("silu_mul", shape(f), 3.0 * double(m * f) * sizeof(bf16), [=] { silu_mul(s, x, m, int(f), out); });
    const auto* const projected = reinterpret_cast<const float*>(x);
    auto* const turned = static_cast<f16*>(b_->out.data());
    const double each = sizeof(float) + sizeof(f16);
    add_rows("rotate_queries", shape(q_dim_), double(m * q_dim_) * each + turns,
             [=, a = attention_] { rotate_queries(s, projected, rope, m, a.heads, a.d, turned); });
    add_rows("store_layer_kv", shape(2 * kv), 2.0 * double(m * kv) * each + turns, [=, a = attention_] {
      store_layer_kv(s, projected, rope, 0, m, m, a.heads_kv, a.d, turned, turned + m * kv);
    });
  }

  // ---- of a token --------------------------------------------------------------------------------------------------

  /// A matrix at `at`, which moves behind it.
  static DecodeMatrix matrix(const Form& form, std::int64_t out, std::int64_t in, std::byte*& at) {
    DecodeMatrix m{form.form, at, nullptr, nullptr, int(out), int(in)};
    if (form.in_groups()) m.scales = reinterpret_cast<const __half2*>(at + out * in / 32 * code_bytes(form.form));
    at += round_up(std::int64_t(form.bytes(out, in)), kAlignment);
    return m;
  }

  void token_products(const Form& form) {
    const std::int64_t d = c_.n_embd, f = c_.n_ff, q = q_dim_, kv = kv_dim_;
    if (form.in_groups() && (d % 32 || f % 32 || q % 32)) return;  // no such file
    const NormedInput normed{reinterpret_cast<const float*>(b_->x.data()), reinterpret_cast<const float*>(b_->w.data()),
                             1e-5f};
    auto* const y = static_cast<float*>(b_->out.data());
    const auto add_product_of = [&](const char* name, std::int64_t out, std::int64_t in,
                                    std::function<void(std::byte*)> call) {
      add_stream(concat(name, ' ', form.name), concat(in, " x ", out), form.bytes(out, in), std::move(call));
    };
    const Rotation rotation{b_->rope.data(), c_.head_dim, int(q + kv)};
    const cudaStream_t s = stream_;
    add_product_of("project q, k, v", q + 2 * kv, d, [=](std::byte* at) {
      const DecodeMatrix parts[] = {matrix(form, q, d, at), matrix(form, kv, d, at), matrix(form, kv, d, at)};
      project(s, parts, normed, rotation, y);
    });
    const bf16* const x = b_->x.data();
    add_product_of("add_product o", d, q, [=](std::byte* at) { add_product(s, matrix(form, d, q, at), x, y); });
    add_product_of("gate_up", 2 * f, d, [=](std::byte* at) {
      const DecodeMatrix gate = matrix(form, f, d, at), up = matrix(form, f, d, at);
      gate_up(s, gate, up, normed, reinterpret_cast<bf16*>(y));
    });
    add_product_of("add_product down", d, f, [=](std::byte* at) { add_product(s, matrix(form, d, f, at), x, y); });
    add_product_of("project output head", c_.n_vocab, d, [=, vocab = c_.n_vocab](std::byte* at) {
      const DecodeMatrix head[] = {matrix(form, vocab, d, at)};
      project(s, head, normed, {}, y);
    });
  }

  /// Over all rows of a prompt, and over the tenth of them that FastKV keeps for each query head.
  void token_attention(std::int64_t n) {
    for (const CacheType type : {CacheType::f32, CacheType::f16, CacheType::bf16, CacheType::q8_0}) {
      if (type == CacheType::q8_0 && c_.head_dim % 32) continue;
      token_attention(type, c_.n_head_kv, n);
    }
    token_attention(CacheType::bf16, c_.n_head, std::max<std::int64_t>(1, n / kKept));
  }
  void token_attention(CacheType type, int stored, std::int64_t n) {
    const std::int64_t row = cache_row_bytes(type, c_.head_dim), half = stored * n * row;
    add_stream(concat("attention_decode ", name(type)),
               concat(c_.n_head, '/', stored, " heads of ", c_.head_dim, ", ", n, " rows"), std::size_t(2 * half),
               [=, s = stream_, a = attention_, x = reinterpret_cast<const float*>(b_->x.data()),
                nothing = &b_->state.data()->appended, work = b_->work.data(), out = static_cast<bf16*>(b_->out.data()),
                offsets = offsets(stored, n), kept = counts(stored, n)](std::byte* at) {
                 const CacheView cache{at, at + half, type, type, row, row, offsets->data(), kept->data(), stored, n};
                 attention_decode(s, a, {x, x, x}, cache, nothing, work, out);
               });
  }

  /// What takes as long as its launch does.
  void token_rest() {
    auto* const out = static_cast<float*>(b_->out.data());
    const auto add_small = [&](const char* name, std::string shape, double bytes, std::function<void()> call) {
      add_graph(name, std::move(shape), Bound::cache, bytes, kSmallCalls, [call = std::move(call)](int) { call(); });
    };
    add_small("embed_token", concat(c_.n_embd), double(c_.n_embd) * (sizeof(bf16) + sizeof(float)),
              [=, s = stream_, d = c_.head_dim, width = c_.n_embd, table = b_->w.data(), state = b_->state.data(),
               freq = b_->inv_freq.data(),
               angles = b_->rope.data()] { embed_token(s, table, state, width, freq, d, 1, out, angles); });
    add_small("arg_max", concat(c_.n_vocab), double(c_.n_vocab) * sizeof(float),
              [=, s = stream_, vocab = c_.n_vocab, logits = reinterpret_cast<const float*>(b_->x.data()),
               work = b_->work.data(), state = b_->state.data() + 1,
               best = b_->best.data()] { arg_max(s, logits, vocab, nullptr, 0, work, state, best); });
  }

  cudaStream_t stream_;
  Gemm& gemm_;
  RooflineSizes sizes_;
  DecoderShape c_;
  AttentionShape attention_;
  std::int64_t q_dim_, kv_dim_;
  std::int64_t rows_, keys_;  ///< the most
  std::size_t in_cache_;      ///< bytes that the device's cache may hold in part
  std::size_t streamed_ = 0;  ///< bytes of the stream that some kernel reads
  std::shared_ptr<Buffers> b_;
  std::vector<DeviceKernel> kernels_;
};

}  // namespace

std::vector<DeviceKernel> roofline_kernels(cudaStream_t stream, Gemm& gemm, const RooflineSizes& sizes,
                                           const DecoderShape& shape, std::size_t cache_bytes) {
  return Builder(stream, gemm, sizes, shape, cache_bytes).all();
}

}  // namespace fastkv::cuda
