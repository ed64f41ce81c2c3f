// Placement over memory nodes changes where numbers are, never what they are: bitwise the same run on every machine.
#include <gtest/gtest.h>

#include "backend/cpu/cpu_backend.hpp"
#include "support/backend_run.hpp"
#include "support/random_model.hpp"

namespace fastkv::test {
namespace {

constexpr std::size_t GiB = std::size_t{1} << 30;

// Nodes that this machine mostly lacks: pins and bindings to them are refused, and the work is split all the same.
Topology machine(int nodes) {
  Topology topology = Topology::synthetic("numa:" + std::to_string(nodes) + " core:2 pu:1");
  for (MemoryNode& node : topology.nodes) node.bytes = 64 * GiB;
  return topology;
}

// Matrices of more than 1 MiB, which are bound page by page; 3 heads, which no number of nodes divides.
const RandomModel& model() {
  static const RandomModel model({"nodes", 2, 192, 1056, 6, 3, 32, 5600, {DType::q8_0, DType::q4_0}, true, true}, 5);
  return model;
}

BackendRun run(const Topology& topology, NumaMode mode, int threads, int threads_batch, Compute compute) {
  EngineOptions options;
  options.numa = mode;
  options.threads = threads;
  options.threads_batch = threads_batch;
  options.compute = compute;
  cpu::CpuBackend backend(options, model().config, model().tensors, topology);
  RunControl control;
  backend.load(model().tensors, {}, control);
  MethodParams method;
  method.method = MethodName::fastkv;
  method.tsp_layer = 0;
  method.retention = 0.5;
  method.tsp_rate = 0.5;
  const std::vector<std::int32_t> prompt = model().prompt(150), fed = {7, 11, 13};
  return run_on(backend, model().config, prompt, method, fed);
}

void expect_equal(const BackendRun& found, const BackendRun& expected) {
  EXPECT_EQ(found.logits, expected.logits);
  EXPECT_EQ(found.decode_logits, expected.decode_logits);
  EXPECT_EQ(found.tsp_kept, expected.tsp_kept);
  for (std::size_t l = 0; l < expected.layers.size(); ++l) {
    EXPECT_EQ(found.layers[l].kept, expected.layers[l].kept);
    EXPECT_EQ(found.layers[l].keys, expected.layers[l].keys);
    EXPECT_EQ(found.layers[l].values, expected.layers[l].values);
  }
}

class Nodes : public testing::TestWithParam<Compute> {};

TEST_P(Nodes, SameBitsInEveryModeOnEveryMachine) {
  const BackendRun expected = run(machine(1), NumaMode::off, 1, 1, GetParam());
  for (const NumaMode mode : {NumaMode::distribute, NumaMode::mirror, NumaMode::interleave, NumaMode::isolate}) {
    for (const auto& [nodes, threads] : {std::pair{2, 3}, {4, 4}, {8, 8}}) {
      SCOPED_TRACE(std::string(name(mode)) + ", " + std::to_string(nodes) + " nodes, " + std::to_string(threads) +
                   " threads");
      expect_equal(run(machine(nodes), mode, threads, threads, GetParam()), expected);
    }
  }
  // teams of different size; fewer threads than nodes, so that a node's copy has no thread of its own
  expect_equal(run(machine(4), NumaMode::mirror, 4, 1, GetParam()), expected);
  expect_equal(run(machine(4), NumaMode::mirror, 2, 5, GetParam()), expected);
  expect_equal(run(machine(4), NumaMode::distribute, 1, 4, GetParam()), expected);
}

INSTANTIATE_TEST_SUITE_P(Compute, Nodes, testing::Values(Compute::f32, Compute::int8),
                         [](const auto& param) { return std::string(name(param.param)); });

TEST(Nodes, MirrorHoldsTheWeightsOncePerNode) {
  const auto weights = [](int nodes, NumaMode mode) {
    EngineOptions options;
    options.numa = mode;
    const cpu::CpuBackend backend(options, model().config, model().tensors, machine(nodes));
    return backend.memory(100, 0).weights;
  };
  const std::size_t once = weights(1, NumaMode::off);
  EXPECT_EQ(weights(1, NumaMode::mirror), once);
  EXPECT_EQ(weights(2, NumaMode::mirror), 2 * once);
  EXPECT_EQ(weights(8, NumaMode::mirror), 8 * once);
  EXPECT_EQ(weights(8, NumaMode::distribute), once);
}

TEST(Nodes, PlanAddsUp) {
  MemoryPlan memory;
  memory.weights = 800 << 20;
  memory.cache = 400 << 20;
  memory.scratch = 80 << 20;
  for (const NumaMode mode : {NumaMode::distribute, NumaMode::mirror, NumaMode::isolate, NumaMode::interleave}) {
    EngineOptions options;
    options.numa = mode;
    const cpu::CpuBackend backend(options, model().config, model().tensors, machine(4));
    const std::vector<NodePlan> nodes = backend.nodes(memory);
    ASSERT_EQ(nodes.size(), mode == NumaMode::interleave ? 0u : mode == NumaMode::isolate ? 1u : 4u);
    NodePlan sum;
    for (const NodePlan& node : nodes) {
      sum.weights += node.weights;
      sum.cache += node.cache;
      sum.work += node.work;
      sum.threads += node.threads;
    }
    if (nodes.empty()) continue;
    EXPECT_EQ(sum.weights, memory.weights);
    EXPECT_EQ(sum.cache, memory.cache);
    EXPECT_EQ(sum.work, memory.scratch);
    EXPECT_EQ(sum.threads, backend.info().threads);
    EXPECT_EQ(nodes.front().head_begin, 0);
    EXPECT_EQ(nodes.back().head_end, model().config.n_head_kv);
    for (std::size_t i = 1; i < nodes.size(); ++i) EXPECT_GE(nodes[i].head_begin, nodes[i - 1].head_end - 1);
  }
}

}  // namespace
}  // namespace fastkv::test
