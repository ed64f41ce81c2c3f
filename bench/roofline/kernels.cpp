// Buffers and calls of each kernel.
#include "bench/roofline/kernels.hpp"

#include <algorithm>
#include <memory>
#include <random>

#include "backend/cpu/wide_linear.hpp"
#include "common/format.hpp"
#include "fastkv/error.hpp"
#include "runtime/memory.hpp"
#include "runtime/parallel.hpp"

namespace fastkv::bench {

namespace {

using simd::KernelTable;
using simd::kGroup;
using simd::kLanes;
using simd::Packing;
using simd::RowType;
using tools::format;

// A square matrix of the 1B shape.
constexpr std::int64_t kInputs = 2048, kOutputs = 2048;
constexpr int kHeadDim = 64, kSharing = 4;  // query heads that read one key/value head

constexpr Packing kPackings[] = {Packing::q4_0,   Packing::q4_1, Packing::q5_0, Packing::q5_1, Packing::q8_0,
                                 Packing::q3_k,   Packing::q4_k, Packing::q5_k, Packing::q6_k, Packing::iq4_nl,
                                 Packing::iq4_xs, Packing::f32,  Packing::f16,  Packing::bf16};
constexpr const char* kPackingNames[] = {"q4_0", "q4_1", "q5_0",   "q5_1",   "q8_0", "q3_k", "q4_k",
                                         "q5_k", "q6_k", "iq4_nl", "iq4_xs", "f32",  "f16",  "bf16"};

template <class T>
using Shared = std::shared_ptr<Array<T>>;

template <class T>
Shared<T> make(std::int64_t count) {
  return std::make_shared<Array<T>>(static_cast<std::size_t>(count), "benchmark buffer");
}

Shared<float> random_floats(std::int64_t count) {
  auto values = make<float>(count);
  std::mt19937 random(1);
  for (std::int64_t i = 0; i < count; ++i) {
    (*values)[static_cast<std::size_t>(i)] = static_cast<float>(random()) * 0x1p-31f - 1;
  }
  return values;
}

/// Rows [rows, kInputs] times weights [kOutputs, kInputs], unpacked already, by a team.
struct Product {
  cpu::Arithmetic arithmetic;
  ThreadTeam& team;
  std::int64_t rows;
  Shared<float> x;  // a row, in L1 as norms leave theirs
  cpu::Linear linear;
  cpu::RowTile tile;
  cpu::WideLinear wide;
  std::vector<cpu::WideSpace> spaces;  // of each thread
  RunControl control;

  Product(const cpu::Arithmetic& a, ThreadTeam& threads, std::int64_t n)
      : arithmetic(a),
        team(threads),
        rows(n),
        x(random_floats(kInputs)),
        linear(weights()),
        tile(arithmetic, cpu::LinearUse::prefill, n, kInputs),
        wide(arithmetic, {&linear}, {0, n}, threads.size()) {
    linear.keep_panels(arithmetic, team, HugePages::automatic);
    tile.begin(rows, kInputs);
    for (int t = 0; t < team.size(); ++t) {
      const cpu::WideShape& shape = wide.shape();
      spaces.push_back({Buffer(), Array<float>(static_cast<std::size_t>(shape.held_rows * shape.out_stride(1)), "sums"),
                        Array<float>()});
    }
  }
  static cpu::Linear weights() {
    const auto values = random_floats(kOutputs * kInputs);
    const TensorView view{"weights", DType::f32, kOutputs, kInputs, reinterpret_cast<const std::byte*>(values->data())};
    cpu::Linear linear;
    linear.w = cpu::PackedTensor(view, Placement(), {0, cpu::PackedTensor::panels_of(view)}, HugePages::automatic);
    linear.w.pack_panels(view, 0, linear.w.panels());
    return linear;
  }
  /// A thread's share: its rows converted, then its items.
  void run(int t) {
    const int threads = team.size();
    for (std::int64_t i = rows * t / threads; i < rows * (t + 1) / threads; ++i) tile.prepare(i, 0, kInputs, x->data());
    team.barrier();
    StageWatch watch;
    const auto leave = [](std::int64_t, std::int64_t, std::int64_t, std::int64_t, const float*, std::int64_t) {};
    for (std::int64_t item = t; item < wide.items(); item += threads)
      wide.run(item, tile, spaces[static_cast<std::size_t>(t)], control, false, watch, leave);
    team.barrier();  // the next call converts rows again
  }
};

class Builder {
 public:
  Builder(simd::Isa isa, ThreadTeam& team, std::size_t stream_bytes, std::int64_t product_rows)
      : isa_(isa),
        kt_(simd::kernels(isa)),
        team_(team),
        rows_(product_rows),
        threads_(team.size()),
        part_(static_cast<std::int64_t>(stream_bytes) / team.size() / 64 * 64),
        stream_(make<std::uint8_t>(part_ * team.size())) {
    // written by the thread that reads it; every format takes these bytes for small numbers
    team.run([&](int t) { std::fill_n(stream_->data() + t * part_, part_, std::uint8_t{0x30}); });
  }

  std::vector<Kernel> all() {
    products();
    for (Packing packing : kPackings) matrix_vector(packing);
    for (RowType type : {RowType::f32, RowType::f16, RowType::bf16, RowType::q8_0}) cached_attention(type);
    rows();
    for (int d : {64, 128}) prompt_attention<float>("attend_f32", d, Bound::f32);
    for (int d : {64, 128}) prompt_attention<std::uint16_t>("attend_bf16", d, Bound::bf16);
    exponentials();
    return std::move(kernels_);
  }

 private:
  void add(std::string name, std::string shape, Bound bound, double work, std::function<void(int)> run) {
    kernels_.push_back({std::move(name), std::move(shape), bound, work, std::move(run)});
  }

  /// A buffer of each thread.
  template <class T>
  std::vector<Shared<T>> each(std::int64_t count) const {
    std::vector<Shared<T>> buffers;
    for (int t = 0; t < threads_; ++t) buffers.push_back(make<T>(count));
    return buffers;
  }

  /// The products of prefill in every arithmetic, with the engine's blocks; conversion of the rows included.
  void products() {
    product("gemm_i8 with rotate_i8", {Compute::int8, &kt_}, Bound::i8);
    product("gemm_bf16 with rounding", {Compute::bf16, &kt_}, Bound::bf16);
    product("gemm_f32", {Compute::f32, &kt_}, Bound::f32);
    try {
      const cpu::OpenBlas& blas = cpu::OpenBlas::load(isa_);
      product("sgemm of OpenBLAS " + blas.core(), {Compute::f32, &kt_, &blas}, Bound::f32);
    } catch (const Error&) {  // not installed: the row is left out
    }
  }

  void product(std::string name, const cpu::Arithmetic& arithmetic, Bound bound) {
    const auto it = std::make_shared<Product>(arithmetic, team_, rows_);
    const cpu::WideShape& shape = it->wide.shape();
    add(std::move(name),
        format("%lld x %lld x %lld by %lld x %lld", static_cast<long long>(rows_), static_cast<long long>(kInputs),
               static_cast<long long>(kOutputs), static_cast<long long>(shape.strip_rows),
               static_cast<long long>(shape.panels * kLanes)),
        bound, 2.0 * static_cast<double>(rows_ * kInputs * kOutputs) / threads_, [it](int t) { it->run(t); });
  }

  /// One row times a matrix that streams from memory, each thread through its own part.
  void matrix_vector(Packing packing) {
    const KernelTable& kt = kt_;
    const std::int64_t bytes = static_cast<std::int64_t>(simd::panel_bytes(packing, kInputs));
    const std::int64_t panels = part_ / bytes / 2;  // of two runs side by side
    const auto x = random_floats(kInputs);
    const std::string shape = format("%lld inputs", static_cast<long long>(kInputs));
    const std::string name = kPackingNames[static_cast<int>(packing)];
    const double work = static_cast<double>(2 * bytes * panels);
    static constexpr std::int64_t kRun = 16;
    const auto runs = [stream = stream_, part = part_, bytes, panels](int t, std::int64_t p) {
      const std::uint8_t* first = stream->data() + t * part + p * bytes;
      return simd::PanelRuns{{first, first + panels * bytes}, {}, std::min(panels - p, kRun)};
    };
    if (packing < Packing::f32) {
      const auto q = make<std::int8_t>(kInputs);
      const auto scale = make<float>(kInputs / kGroup);
      const auto sum = make<std::int32_t>(kInputs / 16);
      kt.quantize_i8(x->data(), kInputs, q->data(), scale->data(), sum->data());
      add("gemv_i8 " + name, shape, Bound::memory, work, [=, &kt](int t) {
        alignas(64) float out[2 * kRun * kLanes];
        for (std::int64_t p = 0; p < panels; p += kRun) {
          kt.gemv_i8(packing, runs(t, p), kInputs, {q->data(), scale->data(), sum->data()}, out);
        }
      });
    }
    add("gemv_f32 " + name, shape, Bound::memory, work, [=, &kt](int t) {
      alignas(64) float out[2 * kRun * kLanes];
      for (std::int64_t p = 0; p < panels; p += kRun) {
        kt.gemv_f32(packing, runs(t, p), kInputs, x->data(), out);
      }
    });
  }

  /// One generated token's attention over cached rows of a type, four query heads a key/value head.
  void cached_attention(RowType type) {
    constexpr const char* kNames[] = {"f32", "f16", "bf16", "q8_0"};
    constexpr std::int64_t kChunk = 1024;
    const std::int64_t chunk_bytes =
        kChunk / simd::kCacheRows * static_cast<std::int64_t>(simd::cache_block_bytes(type, type, kHeadDim));
    const std::int64_t chunks = part_ / chunk_bytes;
    const auto q = random_floats(kSharing * kHeadDim);
    const auto out = each<float>(kSharing * kHeadDim), maxima = each<float>(kSharing), sums = each<float>(kSharing);
    const auto run = [&](std::string name, auto attend_rows) {
      add(name + ' ' + kNames[static_cast<int>(type)], format("%d heads of %d", kSharing, kHeadDim), Bound::memory,
          static_cast<double>(chunk_bytes * chunks), [=, stream = stream_, part = part_](int t) {
            const std::size_t i = static_cast<std::size_t>(t);
            for (std::int64_t c = 0; c < chunks; ++c) {
              attend_rows({type, type, stream->data() + t * part + c * chunk_bytes, kChunk, kHeadDim}, q->data(),
                          kSharing, 0.125f, out[i]->data(), maxima[i]->data(), sums[i]->data());
            }
          });
    };
    run("attend_rows", kt_.attend_rows);
    if (kt_.attend_rows_bf16 != kt_.attend_rows && (type == RowType::f16 || type == RowType::bf16))
      run("attend_rows_bf16", kt_.attend_rows_bf16);
  }

  /// Rows of a prompt, four query heads a key/value head, against the last of 8192 keys.
  template <class Element>
  void prompt_attention(const char* name, int d, Bound bound) {
    const KernelTable& kt = kt_;
    constexpr std::int64_t kQueries = 128, kKeys = 8192;
    const auto q = random_floats(kQueries * kSharing * d), rows = random_floats(kKeys * d);
    const auto keys = make<Element>(kKeys * d), values = make<Element>(kKeys * d);
    for (std::int64_t j = 0; j < kKeys; j += simd::kKeyBlock) {
      const float* from = rows->data() + j * d;
      if constexpr (sizeof(Element) == 2) {
        for (int i = 0; i < simd::kKeyBlock; i += kLanes)
          kt.pack_keys_bf16(from + i * d, d, kLanes, d, keys->data() + (j + i) * d);
        kt.pack_values_bf16(from, d, simd::kKeyBlock, simd::kKeyBlock, d, values->data() + j * d);
      } else {
        for (int i = 0; i < simd::kKeyBlock; i += kLanes)
          kt.pack_keys_f32(from + i * d, d, kLanes, d, keys->data() + (j + i) * d);
        kt.pack_values_f32(from, d, simd::kKeyBlock, simd::kKeyBlock, d, values->data() + j * d);
      }
    }
    const auto limits = make<std::int32_t>(kQueries);
    double seen = 0;
    for (std::int64_t i = 0; i < kQueries; ++i) {
      (*limits)[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(kKeys - kQueries + i + 1);
      seen += static_cast<double>(kKeys - kQueries + i + 1);
    }
    const auto work = each<std::uint8_t>(static_cast<std::int64_t>(simd::attention_work_bytes(kQueries * kSharing, d)));
    const auto out = each<float>(kQueries * kSharing * d);
    const std::string shape = format("%lld x %d heads of %d, %lld keys", static_cast<long long>(kQueries), kSharing, d,
                                     static_cast<long long>(kKeys));
    add(name, shape, bound, 4.0 * d * kSharing * seen, [=, &kt](int t) {
      const std::size_t i = static_cast<std::size_t>(t);
      const simd::AttentionRows arguments{.q = q->data(),
                                          .ldq = kSharing * d,
                                          .limits = limits->data(),
                                          .m = kQueries,
                                          .group = kSharing,
                                          .d = d,
                                          .scale = 0.125f,
                                          .keys = keys->data(),
                                          .values = values->data(),
                                          .work = work[i]->data(),
                                          .out = out[i]->data(),
                                          .ldo = kSharing * d};
      sizeof(Element) == 2 ? kt.attend_bf16(arguments) : kt.attend_f32(arguments);
    });
  }

  /// Kernels that touch each element a few times, on a tile in the caches: bytes read and written.
  void rows() {
    const KernelTable& kt = kt_;
    constexpr std::int64_t n = 32;
    const double row = 4.0 * kInputs;
    const std::string shape = format("%lld x %lld", static_cast<long long>(n), static_cast<long long>(kInputs));
    const auto x = each<float>(n * kInputs), y = each<float>(n * kInputs), z = each<float>(n * kInputs);
    for (int t = 0; t < threads_; ++t) {
      std::fill_n(x[static_cast<std::size_t>(t)]->data(), n * kInputs, 0.5f);
      std::fill_n(y[static_cast<std::size_t>(t)]->data(), n * kInputs, 0.25f);
    }
    const auto weight = random_floats(kInputs);
    const auto each_row = [&](const char* name, double arrays, auto call) {
      add(name, shape, Bound::cache, arrays * row * static_cast<double>(n), [=](int t) {
        const std::size_t i = static_cast<std::size_t>(t);
        for (std::int64_t r = 0; r < n; ++r) {
          call(x[i]->data() + r * kInputs, y[i]->data() + r * kInputs, z[i]->data() + r * kInputs);
        }
      });
    };
    each_row("rms_norm", 2, [&kt, weight](const float* a, const float*, float* c) {
      kt.rms_norm(a, weight->data(), kInputs, 1e-5f, c);
    });
    each_row("add", 3, [&kt](const float* a, const float*, float* c) { kt.add(c, a, kInputs); });
    each_row("silu_mul", 3, [&kt](const float* a, const float* b, float* c) { kt.silu_mul(a, b, kInputs, c); });
    // a rotation by one angle for all: sizes stay what they are, call after call
    const auto turn = make<float>(kHeadDim);
    for (int i = 0; i < kHeadDim; ++i) (*turn)[static_cast<std::size_t>(i)] = i % 2 ? 0.6f : 0.8f;
    each_row("rope", 2, [&kt, turn](const float*, const float*, float* c) {
      kt.rope(c, turn->data(), kInputs / kHeadDim, kHeadDim);
    });
    each_row("f32_to_bf16", 1.5, [&kt](const float* a, const float*, float* c) {
      kt.f32_to_bf16(a, kInputs, reinterpret_cast<std::uint16_t*>(c));
    });
    const auto q = each<std::int8_t>(kInputs);
    const auto scale = each<float>(kInputs / kGroup);
    const auto sum = each<std::int32_t>(kInputs / 16);
    add("rotate_i8", shape, Bound::cache, 1.25 * row * static_cast<double>(n), [=, &kt](int t) {
      const std::size_t i = static_cast<std::size_t>(t);
      for (std::int64_t r = 0; r < n; ++r) {
        kt.rotate_i8(x[i]->data() + r * kInputs, kInputs, q[i]->data(), scale[i]->data(), sum[i]->data());
      }
    });
    add("quantize_i8", shape, Bound::cache, 1.25 * row * static_cast<double>(n), [=, &kt](int t) {
      const std::size_t i = static_cast<std::size_t>(t);
      for (std::int64_t r = 0; r < n; ++r) {
        kt.quantize_i8(x[i]->data() + r * kInputs, kInputs, q[i]->data(), scale[i]->data(), sum[i]->data());
      }
    });
  }

  /// Exponentials per second: no peak of the machine bounds them by itself.
  void exponentials() {
    const KernelTable& kt = kt_;
    const auto s = each<float>(512);
    add("exp_sum", "512", Bound::exponentials, 512,
        [=, &kt](int t) { kt.exp_sum(s[static_cast<std::size_t>(t)]->data(), 512, 1.0f, 1.0f); });
  }

  simd::Isa isa_;
  const KernelTable& kt_;
  ThreadTeam& team_;
  std::int64_t rows_;  // of products
  int threads_;
  std::int64_t part_;            // bytes of a thread in stream_
  Shared<std::uint8_t> stream_;  // what all kernels bound by memory read
  std::vector<Kernel> kernels_;
};

}  // namespace

const char* name(Bound bound) {
  switch (bound) {
    case Bound::f32:
      return "f32";
    case Bound::bf16:
      return "bf16";
    case Bound::i8:
      return "int8";
    case Bound::memory:
      return "read";
    case Bound::cache:
    case Bound::exponentials:
      break;
  }
  return "";
}

std::vector<Kernel> kernels_of(simd::Isa isa, ThreadTeam& team, std::size_t stream_bytes, std::int64_t product_rows) {
  return Builder(isa, team, stream_bytes, product_rows).all();
}

}  // namespace fastkv::bench
