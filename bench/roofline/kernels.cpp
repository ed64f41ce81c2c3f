// Buffers and calls of each kernel.
#include "bench/roofline/kernels.hpp"

#include <algorithm>
#include <memory>
#include <random>

#include "backend/cpu/gemm_openblas.hpp"
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

// A tile of prompt rows against a square matrix of the 1B shape.
constexpr std::int64_t kRows = 256, kInputs = 2048, kOutputs = 2048, kPanels = kOutputs / kLanes;
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

class Builder {
 public:
  Builder(simd::Isa isa, ThreadTeam& team, std::size_t stream_bytes)
      : isa_(isa),
        kt_(simd::kernels(isa)),
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

  /// C [256, 2048] = A · Wᵀ in every arithmetic, conversion of the rows included.
  void products() {
    const KernelTable& kt = kt_;
    const double work = 2.0 * kRows * kInputs * kOutputs;
    const std::string shape = format("%lld x %lld x %lld", static_cast<long long>(kRows),
                                     static_cast<long long>(kInputs), static_cast<long long>(kOutputs));
    const auto x = random_floats(kRows * kInputs);
    const auto c = each<float>(kRows * kOutputs);

    const std::int64_t groups = (kInputs + kt.wide_group - 1) / kt.wide_group;
    const auto panels_i8 = make<std::uint8_t>(kInputs * kOutputs);
    const auto scale = make<float>(groups * kOutputs);
    std::fill_n(panels_i8->data(), panels_i8->size(), std::uint8_t{70});
    std::fill_n(scale->data(), scale->size(), 0x1p-7f);
    const auto q = each<std::int8_t>(kRows * kInputs);
    const auto a_scale = each<float>(kRows * groups);
    const auto sum = each<std::int32_t>(kRows * groups);
    add("gemm_i8 with rotate_i8", shape, Bound::i8, work, [=, &kt](int t) {
      const std::size_t i = static_cast<std::size_t>(t);
      for (std::int64_t m = 0; m < kRows; ++m) {
        kt.rotate_i8(x->data() + m * kInputs, kInputs, q[i]->data() + m * kInputs, a_scale[i]->data() + m * groups,
                     sum[i]->data() + m * groups);
      }
      kt.gemm_i8(kRows, kInputs, {q[i]->data(), a_scale[i]->data(), sum[i]->data()}, {panels_i8->data(), scale->data()},
                 kPanels, c[i]->data(), kOutputs);
    });

    const auto panels_bf16 = make<std::uint16_t>(kInputs * kOutputs);
    std::fill_n(panels_bf16->data(), panels_bf16->size(), std::uint16_t{0x3c00});
    const auto a_bf16 = each<std::uint16_t>(kRows * kInputs);
    add("gemm_bf16 with rounding", shape, Bound::bf16, work, [=, &kt](int t) {
      const std::size_t i = static_cast<std::size_t>(t);
      kt.f32_to_bf16(x->data(), kRows * kInputs, a_bf16[i]->data());
      kt.gemm_bf16(kRows, kInputs, a_bf16[i]->data(), kInputs, panels_bf16->data(), kPanels, c[i]->data(), kOutputs,
                   false);
    });

    const auto panels_f32 = make<float>(kInputs * kOutputs);
    std::fill_n(panels_f32->data(), panels_f32->size(), 0.01f);
    add("gemm_f32", shape, Bound::f32, work, [=, &kt](int t) {
      kt.gemm_f32(kRows, kInputs, x->data(), kInputs, panels_f32->data(), kPanels,
                  c[static_cast<std::size_t>(t)]->data(), kOutputs, false);
    });
    try {
      const cpu::OpenBlas& blas = cpu::OpenBlas::load(isa_);
      add("sgemm of OpenBLAS " + blas.core(), shape, Bound::f32, work, [=, &blas](int t) {
        blas.gemm(kRows, kOutputs, kInputs, x->data(), kInputs, panels_f32->data(), kOutputs,
                  c[static_cast<std::size_t>(t)]->data(), kOutputs);
      });
    } catch (const Error&) {  // not installed: the row is left out
    }
  }

  /// One row times a matrix that streams from memory, each thread through its own part.
  void matrix_vector(Packing packing) {
    const KernelTable& kt = kt_;
    const std::int64_t bytes = static_cast<std::int64_t>(simd::panel_bytes(packing, kInputs));
    const std::int64_t panels = part_ / bytes / 2, apart = panels * bytes;  // of two runs side by side
    const auto x = random_floats(kInputs);
    const std::string shape = format("%lld inputs", static_cast<long long>(kInputs));
    const std::string name = kPackingNames[static_cast<int>(packing)];
    const double work = static_cast<double>(2 * bytes * panels);
    const auto weights = [stream = stream_, part = part_](int t) { return stream->data() + t * part; };
    if (packing < Packing::f32) {
      const auto q = make<std::int8_t>(kInputs);
      const auto scale = make<float>(kInputs / kGroup);
      const auto sum = make<std::int32_t>(kInputs / 16);
      kt.quantize_i8(x->data(), kInputs, q->data(), scale->data(), sum->data());
      add("gemv_i8 " + name, shape, Bound::memory, work, [=, &kt](int t) {
        alignas(64) float out[2 * kLanes];
        for (std::int64_t p = 0; p < panels; ++p) {
          kt.gemv_i8(packing, weights(t) + p * bytes, apart, kInputs, {q->data(), scale->data(), sum->data()}, 1, out);
        }
      });
    }
    add("gemv_f32 " + name, shape, Bound::memory, work, [=, &kt](int t) {
      alignas(64) float out[2 * kLanes];
      for (std::int64_t p = 0; p < panels; ++p) {
        kt.gemv_f32(packing, weights(t) + p * bytes, apart, kInputs, x->data(), 1, out);
      }
    });
  }

  /// One generated token's attention over cached rows of a type, four query heads a key/value head.
  void cached_attention(RowType type) {
    const KernelTable& kt = kt_;
    constexpr const char* kNames[] = {"f32", "f16", "bf16", "q8_0"};
    constexpr std::int64_t kChunk = 512;
    const std::int64_t row = static_cast<std::int64_t>(simd::row_bytes(type, kHeadDim)), chunks = part_ / row / kChunk;
    const auto q = random_floats(kSharing * kHeadDim);
    const auto scores = each<float>(kSharing * kChunk);
    const auto out = each<float>(kSharing * kHeadDim);
    const std::string shape = format("%d heads of %d", kSharing, kHeadDim);
    const std::string name = kNames[static_cast<int>(type)];
    const double work = static_cast<double>(row * kChunk * chunks);
    const auto rows = [stream = stream_, part = part_, row](int t, std::int64_t chunk) {
      return stream->data() + t * part + chunk * kChunk * row;
    };
    add("attend_keys " + name, shape, Bound::memory, work, [=, &kt](int t) {
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        kt.attend_keys(type, q->data(), kSharing, rows(t, chunk), static_cast<std::size_t>(row), kChunk, kHeadDim,
                       0.125f, scores[static_cast<std::size_t>(t)]->data(), kChunk);
      }
    });
    add("attend_values " + name, shape, Bound::memory, work, [=, &kt](int t) {
      const std::size_t i = static_cast<std::size_t>(t);
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        kt.attend_values(type, scores[i]->data(), kChunk, kSharing, rows(t, chunk), static_cast<std::size_t>(row),
                         kChunk, kHeadDim, out[i]->data());
      }
    });
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

std::vector<Kernel> kernels_of(simd::Isa isa, ThreadTeam& team, std::size_t stream_bytes) {
  return Builder(isa, team, stream_bytes).all();
}

}  // namespace fastkv::bench
