// Loading a model: tensor after tensor through two pieces of pinned memory, one filled while the other is copied.
#include <algorithm>
#include <cstring>
#include <thread>

#include "backend/cuda/weights.hpp"
#include "core/block_parts.hpp"
#include "core/half.hpp"
#include "core/quant_blocks.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr std::size_t kStaged = std::size_t(32) << 20;    // bytes copied at a time, at least a row
constexpr std::size_t kPerThread = std::size_t(1) << 18;  // bytes worth a thread of their own
constexpr int kGroup = 32, kScales = 4;                   // weights, and bytes of their scales

// Two pieces of pinned host memory, each with an event that says when the device has read it.
class Staging {
 public:
  Staging(cudaStream_t stream, std::size_t bytes) : stream_(stream) {
    for (Piece& piece : pieces_) {
      check_cuda(cudaMallocHost(&piece.memory, bytes), "memory to load through");
      check_cuda(cudaEventCreateWithFlags(&piece.read, cudaEventDisableTiming), "event of a copy");
    }
  }
  ~Staging() {
    cudaStreamSynchronize(stream_);
    for (Piece& piece : pieces_) {
      if (piece.read) cudaEventDestroy(piece.read);
      cudaFreeHost(piece.memory);
    }
  }
  Staging(const Staging&) = delete;

  /// Memory that the device no longer reads.
  std::byte* next() {
    turn_ = !turn_;
    check_cuda(cudaEventSynchronize(pieces_[turn_].read), "copy of weights");
    return static_cast<std::byte*>(pieces_[turn_].memory);
  }
  /// Copies `bytes` at `from` of the memory that next() gave.
  void send(void* to, std::size_t from, std::size_t bytes) {
    const Piece& piece = pieces_[turn_];
    check_cuda(
        cudaMemcpyAsync(to, static_cast<std::byte*>(piece.memory) + from, bytes, cudaMemcpyHostToDevice, stream_),
        "copy of weights");
    check_cuda(cudaEventRecord(piece.read, stream_), "copy of weights");
  }

 private:
  struct Piece {
    void* memory = nullptr;
    cudaEvent_t read = nullptr;
  };
  cudaStream_t stream_;
  Piece pieces_[2];
  bool turn_ = false;
};

// body(i) for i < n, on as many threads as the bytes are worth.
template <class Body>
void on_threads(int threads, std::size_t bytes, std::int64_t n, const Body& body) {
  threads = int(std::clamp<std::int64_t>(std::int64_t(bytes / kPerThread), 1, std::min<std::int64_t>(threads, n)));
  const auto part = [&](int t) {
    for (std::int64_t i = n * t / threads; i < n * (t + 1) / threads; ++i) body(i);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(part, t);
  part(0);
  for (std::thread& other : others) other.join();
}

// Bytes of a row in the form that the device gets.
std::size_t device_row(const WeightCopy& copy) {
  const std::size_t cols = std::size_t(copy.tensor.cols);
  switch (copy.form) {
    case WeightCopy::Form::float32:
      return cols * sizeof(float);
    case WeightCopy::Form::bfloat16:
      return cols * sizeof(bf16);
    case WeightCopy::Form::codes:
      return cols / kGroup * std::size_t(group_bytes(copy.codes));
    case WeightCopy::Form::zeros:
      break;
  }
  return 0;
}

void convert_row(const WeightCopy& copy, std::int64_t row, std::byte* to) {
  const TensorView& t = copy.tensor;
  const std::size_t cols = std::size_t(t.cols);
  thread_local std::vector<float> values;
  values.resize(cols);
  dequantize_row(t.type, t.data + std::size_t(row) * row_bytes(t.type, cols), values.data(), cols);
  if (copy.form == WeightCopy::Form::float32) {
    std::memcpy(to, values.data(), cols * sizeof(float));
    return;
  }
  auto* bits = reinterpret_cast<std::uint16_t*>(to);
  for (std::size_t k = 0; k < cols; ++k) bits[k] = f32_to_bf16(values[k]);
}

// Group g of a block that was taken apart, as `form` has it: integers, and two float16.
void write_group(const BlockParts& block, const BlockShape& shape, bool super_block, int g, WeightForm form,
                 std::byte* codes, std::byte* scales) {
  const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
  const auto scale_of = [&](int k) { return super_block ? d * float(block.sc[k / shape.scale_group]) : d; };
  const std::uint8_t* q = block.q + g * kGroup;
  std::uint16_t pair[2];
  if (form == WeightForm::q4) {
    const float scale = scale_of(g * kGroup), offset = super_block ? -(m * float(block.mn[g])) : m;
    pair[0] = f32_to_f16(scale);
    pair[1] = f32_to_f16(offset - float(shape.zero) * scale);  // Q4_0's is exact: its zero is a power of two
    for (int k = 0; k < kGroup / 2; ++k) codes[k] = std::byte(q[k] | q[k + kGroup / 2] << 4);
  } else {
    for (int half = 0; half < 2; ++half) pair[half] = f32_to_f16(scale_of(g * kGroup + half * kGroup / 2));
    for (int k = 0; k < kGroup; ++k)
      codes[k] = std::byte(128 + (shape.levels ? int(kIq4Levels[q[k]]) : int(q[k]) - shape.zero));
  }
  std::memcpy(scales, pair, kScales);
}

// Row `row` of a tensor apart: integers and scales.
void split_row(const WeightCopy& copy, std::int64_t row, std::byte* codes, std::byte* scales) {
  const TensorView& t = copy.tensor;
  const DTypeInfo& type = info(t.type);
  const BlockShape shape = block_shape(t.type);
  const int groups = int(type.block_weights) / kGroup;
  const std::byte* from = t.data + std::size_t(row) * row_bytes(t.type, std::size_t(t.cols));
  BlockParts block;
  for (std::int64_t k = 0; k < t.cols; k += std::int64_t(type.block_weights), from += type.block_bytes) {
    read_block(t.type, reinterpret_cast<const std::uint8_t*>(from), block);
    for (int g = 0; g < groups; ++g, codes += code_bytes(copy.codes), scales += kScales)
      write_group(block, shape, groups > 1, g, copy.codes, codes, scales);
  }
}

void send_rows(const WeightCopy& copy, std::int64_t first, std::int64_t n, int threads, Staging& staging) {
  const std::size_t row = device_row(copy);
  std::byte *memory = staging.next(), *to = static_cast<std::byte*>(copy.to);
  if (copy.form != WeightCopy::Form::codes) {
    on_threads(threads, std::size_t(n) * row, n,
               [&](std::int64_t i) { convert_row(copy, first + i, memory + std::size_t(i) * row); });
    staging.send(to + std::size_t(first) * row, 0, std::size_t(n) * row);
    return;
  }
  const std::int64_t groups = copy.tensor.cols / kGroup, codes = groups * code_bytes(copy.codes);
  std::byte* scales = memory + n * codes;
  on_threads(threads, std::size_t(n) * row, n,
             [&](std::int64_t i) { split_row(copy, first + i, memory + i * codes, scales + i * groups * kScales); });
  staging.send(to + first * codes, 0, std::size_t(n * codes));
  staging.send(copy.scales + first * groups, std::size_t(n * codes), std::size_t(n * groups * kScales));
}

}  // namespace

Weights load_weights(cudaStream_t stream, const ModelTensors& tensors, bool keep_codes, int threads,
                     const std::function<void(const TensorView&)>& packed, RunControl& control) {
  std::vector<WeightCopy> copies;
  DeviceBuffer memory(stream, place_weights(tensors, keep_codes, nullptr, copies).bytes, "weights");
  copies.clear();
  Weights weights = place_weights(tensors, keep_codes, static_cast<std::byte*>(memory.data()), copies);
  weights.memory = std::move(memory);
  std::size_t longest = 0;
  for (const WeightCopy& copy : copies) longest = std::max(longest, device_row(copy));
  Staging staging(stream, std::max(kStaged, longest));
  for (const WeightCopy& copy : copies) {
    if (copy.form == WeightCopy::Form::zeros) {
      check_cuda(cudaMemsetAsync(copy.to, 0, copy.bytes, stream), "zeros of a bias");
      continue;
    }
    const std::int64_t most = std::int64_t(std::max(kStaged, longest) / device_row(copy));
    for (std::int64_t first = 0; first < copy.tensor.rows; first += most) {
      send_rows(copy, first, std::min(most, copy.tensor.rows - first), threads, staging);
      control.poll();
      control.throw_if_stopped();
    }
    if (!copy.last) continue;
    control.add_work(double(copy.tensor.bytes()));
    if (packed) packed(copy.tensor);
  }
  check_cuda(cudaStreamSynchronize(stream), "weights");
  return weights;
}

}  // namespace fastkv::cuda
