// Generates and quantises weights in chunks on several threads, and writes them in order.
#include "make-model/weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <thread>

#include "common/signals.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {
namespace {

constexpr std::uint64_t kChunkWeights = 1u << 20;

std::uint64_t splitmix64(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// Nearly normal values: the sum of the four 16-bit quarters of a random word, centred and scaled.
void fill_normal(std::uint64_t state, float mean, float deviation, std::span<float> out) {
  constexpr double kSumDeviation = 37837.22;  // sqrt(4·65536²/12)
  const auto scale = float(deviation / kSumDeviation);
  for (float& value : out) {
    const std::uint64_t bits = splitmix64(state);
    const auto sum = std::int32_t((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    value = mean + scale * float(sum - 2 * 65535);
  }
}

/// Part of one tensor: whole blocks of consecutive weights.
struct Chunk {
  const TensorPlan* tensor;
  std::uint64_t seed;
  std::uint64_t weights;
  std::vector<std::byte> data;
};

void generate(const Shape& shape, Chunk& chunk) {
  std::vector<float> values(chunk.weights);
  switch (chunk.tensor->fill) {
    case TensorPlan::Fill::normal:
      fill_normal(chunk.seed, 0, float(1 / std::sqrt(double(chunk.tensor->dims[0]))), values);
      break;
    case TensorPlan::Fill::norm:
      fill_normal(chunk.seed, 1, 0.05f, values);
      break;
    case TensorPlan::Fill::rope_factors:
      values = rope_factors(shape);
      break;
  }
  chunk.data.resize(tensor_bytes(chunk.tensor->type, chunk.weights));
  quantize_tensor(chunk.tensor->type, values.data(), chunk.weights, chunk.data.data());
}

}  // namespace

void write_weights(GgufWriter& writer, const Shape& shape, const std::vector<TensorPlan>& plan, std::uint64_t seed,
                   int threads) {
  std::vector<Chunk> batch;
  const auto run_batch = [&] {
    {
      std::vector<std::jthread> workers;
      for (auto& chunk : batch) workers.emplace_back([&shape, &chunk] { generate(shape, chunk); });
    }
    for (const auto& chunk : batch) writer.write(chunk.data);
    batch.clear();
    if (stop_flag()) throw Error(ErrorCode::cancelled, "stopped");
  };
  std::uint64_t state = seed;
  for (const auto& tensor : plan) {
    std::uint64_t left = 1;
    for (const auto dim : tensor.dims) left *= dim;
    while (left > 0) {
      const auto weights = std::min(left, kChunkWeights);  // a multiple of every block size, as every row is
      batch.push_back({&tensor, splitmix64(state), weights, {}});
      left -= weights;
      if (batch.size() == std::size_t(threads)) run_batch();
    }
  }
  run_batch();
}

}  // namespace fastkv::tools
