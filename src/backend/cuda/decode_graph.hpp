// A step of decode captured once and launched for every token.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace fastkv::cuda {

/// The work that `key` stands for, as a graph that is captured anew when the key changes.
class DecodeGraph {
 public:
  using Key = std::vector<std::uint64_t>;

  DecodeGraph() = default;
  ~DecodeGraph();
  DecodeGraph(const DecodeGraph&) = delete;

  /// Runs what `work` gives to `stream`: kernels only, no allocation, no wait.
  void run(cudaStream_t stream, const Key& key, const std::function<void()>& work);

 private:
  void capture(cudaStream_t stream, const std::function<void()>& work);
  void clear();

  Key key_;
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace fastkv::cuda
