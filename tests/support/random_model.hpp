// Small Llama-shaped models with random weights, in memory, for tests of shapes that no file at hand has.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/model_desc.hpp"

namespace fastkv::test {

struct RandomShape {
  const char* name = "";
  int n_layer = 4, n_embd = 64, n_ff = 96, n_head = 4, n_head_kv = 2, head_dim = 16, n_vocab = 131;
  std::vector<DType> types = {
      DType::f32};  ///< of the weights, taken in turn; floats where a row is no multiple of a block
  bool biases = false;
  bool tied = false;
  bool rope_factors = false;  ///< scaled angles, as in Llama-3.1 files
};

/// A model and the bytes its views point to. The same seed gives the same model.
struct RandomModel {
  RandomModel(const RandomShape& shape, std::uint64_t seed);
  RandomModel(const RandomModel&) = delete;

  RandomShape shape;
  std::uint64_t seed;
  ModelConfig config;
  ModelTensors tensors;

  std::vector<std::int32_t> prompt(std::int64_t n) const;  ///< n random token ids

 private:
  TensorView matrix(const std::string& name, std::int64_t rows, std::int64_t cols, double gain);
  TensorView vector(const std::string& name, std::int64_t size, double mean, double spread);
  TensorView quantized(const std::string& name, DType type, std::int64_t rows, std::int64_t cols,
                       const std::vector<float>& values);

  std::vector<std::unique_ptr<std::byte[]>> storage_;
  std::mt19937_64 random_;
  std::size_t next_type_ = 0;
};

std::ostream& operator<<(std::ostream& out, const RandomModel& model);

}  // namespace fastkv::test
