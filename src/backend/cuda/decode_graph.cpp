// Capturing a stream's work as a graph.
#include "backend/cuda/decode_graph.hpp"

#include "backend/cuda/device.hpp"

namespace fastkv::cuda {

DecodeGraph::~DecodeGraph() { clear(); }

void DecodeGraph::clear() {
  if (exec_) cudaGraphExecDestroy(exec_);
  exec_ = nullptr;
}

void DecodeGraph::capture(cudaStream_t stream, const std::function<void()>& work) {
  clear();
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a graph");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream, &graph), "ending a graph");
  const cudaError_t status = cudaGraphInstantiate(&exec_, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(status, "making a graph");
}

void DecodeGraph::run(cudaStream_t stream, const Key& key, const std::function<void()>& work) {
  if (!exec_ || key != key_) {
    capture(stream, work);
    key_ = key;
  }
  check_cuda(cudaGraphLaunch(exec_, stream), "running a graph");
}

}  // namespace fastkv::cuda
