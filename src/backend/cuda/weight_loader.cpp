// Loading a model: tensor after tensor through two pieces of pinned memory, one filled while the other is copied.
#include <algorithm>
#include <cstring>
#include <thread>

#include "backend/cuda/weights.hpp"
#include "core/half.hpp"
#include "core/quant_blocks.hpp"
#include "core/round.hpp"

namespace fastkv::cuda {
namespace {

constexpr std::size_t kStaged = std::size_t(32) << 20;    // bytes copied at a time, at least a row
constexpr std::size_t kPerThread = std::size_t(1) << 18;  // bytes worth a thread of their own
constexpr std::int64_t kGroup = 32;                       // weights of a Q4_0 or Q4_1 block
constexpr std::int64_t kNibbles = 16, kScales = 4;        // bytes of such a block in WeightForm::q4

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
    case WeightCopy::Form::q4:
      return cols / kGroup * (kNibbles + kScales);
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

// Row `row` of a Q4_0 or Q4_1 tensor apart: nibbles, which lie in the file as decode wants them, and scales.
void split_row(const TensorView& t, std::int64_t row, std::byte* nibbles, std::byte* scales) {
  const std::size_t block = info(t.type).block_bytes;
  const std::byte* from = t.data + std::size_t(row) * row_bytes(t.type, std::size_t(t.cols));
  for (std::int64_t g = 0; g < t.cols / kGroup; ++g, from += block) {
    std::uint16_t scale[2];
    std::memcpy(scale, from, t.type == DType::q4_1 ? kScales : kScales / 2);
    if (t.type == DType::q4_0) scale[1] = f32_to_f16(-8 * f16_to_f32(scale[0]));  // exact: a power of two
    std::memcpy(scales + g * kScales, scale, kScales);
    std::memcpy(nibbles + g * kNibbles, from + (block - kNibbles), kNibbles);
  }
}

void send_rows(const WeightCopy& copy, std::int64_t first, std::int64_t n, int threads, Staging& staging) {
  const std::size_t row = device_row(copy);
  std::byte *memory = staging.next(), *to = static_cast<std::byte*>(copy.to);
  if (copy.form != WeightCopy::Form::q4) {
    on_threads(threads, std::size_t(n) * row, n,
               [&](std::int64_t i) { convert_row(copy, first + i, memory + std::size_t(i) * row); });
    staging.send(to + std::size_t(first) * row, 0, std::size_t(n) * row);
    return;
  }
  const std::int64_t groups = copy.tensor.cols / kGroup;
  std::byte* scales = memory + n * groups * kNibbles;
  on_threads(threads, std::size_t(n) * row, n, [&](std::int64_t i) {
    split_row(copy.tensor, first + i, memory + i * groups * kNibbles, scales + i * groups * kScales);
  });
  staging.send(to + first * groups * kNibbles, 0, std::size_t(n * groups * kNibbles));
  staging.send(copy.scales + first * groups, std::size_t(n * groups * kNibbles), std::size_t(n * groups * kScales));
}

}  // namespace

Weights load_weights(cudaStream_t stream, const ModelTensors& tensors, bool keep_q4, int threads,
                     const std::function<void(const TensorView&)>& packed, RunControl& control) {
  std::vector<WeightCopy> copies;
  DeviceBuffer memory(stream, place_weights(tensors, keep_q4, nullptr, copies).bytes, "weights");
  copies.clear();
  Weights weights = place_weights(tensors, keep_q4, static_cast<std::byte*>(memory.data()), copies);
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
