// The backend against the oracle: every ISA level of this CPU, every arithmetic, both stages, on random small shapes.
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "support/cases.hpp"
#include "support/oracle_case.hpp"

namespace fastkv::test {
namespace {

constexpr std::uint64_t kSeed = 20260811;

/// A loaded backend.
std::unique_ptr<Backend> backend_for(const RandomModel& model, simd::Isa isa, const Arithmetic& arithmetic,
                                     int threads) {
  EngineOptions options;
  options.threads = options.threads_batch = threads;
  options.isa = simd::name(isa);
  options.compute = arithmetic.compute;
  options.gemm = arithmetic.gemm;
  options.tile_rows = 16;
  std::unique_ptr<Backend> backend = make_backend(options, model.config, model.tensors);
  EXPECT_EQ(backend->info().isa, simd::name(isa));
  RunControl control;
  backend->load(
      model.tensors, [](const TensorView&) {}, control);
  return backend;
}

class OracleComparison : public testing::TestWithParam<std::tuple<RandomShape, Arithmetic>> {};

TEST_P(OracleComparison, EveryIsaAndBothStages) {
  const auto& [shape, arithmetic] = GetParam();
  const RandomModel model(shape, kSeed);
  const Oracle oracle(model.config, model.tensors);
  // One thread: any number gives the same bits (end_to_end/determinism_test.cpp), and thousands of tiny parallel
  // regions on a busy machine are mostly waiting.
  std::vector<std::unique_ptr<Backend>> backends;
  for (simd::Isa isa : isas()) backends.push_back(backend_for(model, isa, arithmetic, 1));
  std::size_t c = 0;
  for (const MethodCase& one : method_cases(shape.n_layer)) {
    // The exact arithmetic meets every case; what it showed of lengths and options need not be shown three more times.
    if (arithmetic.compute != Compute::f32 && c++ % 4 != 1) continue;
    const OracleCase exact(model, oracle, one, rounding_of(arithmetic.compute), 2);
    for (const auto& backend : backends) {
      std::ostringstream where;
      where << model << ", case " << one.name << ", " << backend->info().isa << ", " << arithmetic;
      SCOPED_TRACE(where.str());
      exact.expect_layers(*backend);
      if (HasFailure()) return;
    }
  }
}

TEST_P(OracleComparison, EveryMethod) {
  const auto& [shape, arithmetic] = GetParam();
  const RandomModel model(shape, kSeed);
  const Oracle oracle(model.config, model.tensors);
  const bool exact_arithmetic = arithmetic.compute == Compute::f32;
  std::vector<std::unique_ptr<Backend>> backends;
  for (simd::Isa isa : isas()) backends.push_back(backend_for(model, isa, arithmetic, 1));
  std::size_t c = 0;
  for (const MethodCase& one : rival_cases(model.config)) {
    if (arithmetic.gemm != Gemm::native || !exact_arithmetic)
      if (c++ % 4 != std::size_t(arithmetic.compute) % 4) continue;
    const OracleCase exact(model, oracle, one, rounding_of(arithmetic.compute), 1);
    for (const auto& backend : backends) {
      std::ostringstream where;
      where << model << ", case " << one.name << ", " << backend->info().isa << ", " << arithmetic;
      SCOPED_TRACE(where.str());
      exact.expect_prefill(*backend, exact_arithmetic || one.method.method != MethodName::adakv);
      if (HasFailure()) return;
    }
  }
}

// Prompts beyond the blocks that the small ones stay within: 128 keys of attention, 1024 of a decode step, 1024 scores.
class LongPrompt : public testing::TestWithParam<Arithmetic> {};

TEST_P(LongPrompt, EveryIsa) {
  const RandomModel model(long_shape(), kSeed);
  const Oracle oracle(model.config, model.tensors);
  for (const MethodCase& one : long_cases(model.config.n_layer)) {
    const OracleCase exact(model, oracle, one, rounding_of(GetParam().compute), 1);
    for (simd::Isa isa : isas()) {
      SCOPED_TRACE(one.name + ", " + simd::name(isa));
      exact.expect_layers(*backend_for(model, isa, GetParam(), 2));
      if (HasFailure()) return;
    }
  }
}

// The same for column sums, which multiply in float32 or, under bf16 and int8, in bfloat16.
class LongColumns : public testing::TestWithParam<Arithmetic> {};

TEST_P(LongColumns, EveryIsa) {
  const RandomModel model(long_shape(), kSeed);
  const Oracle oracle(model.config, model.tensors);
  for (const MethodCase& one : long_column_cases(model.config.n_layer)) {
    const OracleCase exact(model, oracle, one, rounding_of(GetParam().compute), 1);
    for (simd::Isa isa : isas()) {
      SCOPED_TRACE(one.name + ", " + simd::name(isa));
      exact.expect_prefill(*backend_for(model, isa, GetParam(), 2), true);
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Arithmetics, LongColumns, testing::Values(arithmetics()[1], arithmetics()[2]),
                         [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(Arithmetics, LongPrompt, testing::ValuesIn(arithmetics()),
                         [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(Shapes, OracleComparison,
                         testing::Combine(testing::ValuesIn(shapes()), testing::ValuesIn(arithmetics())),
                         [](const auto& param) {
                           return std::string(std::get<0>(param.param).name) + "_" + std::get<1>(param.param).name;
                         });

}  // namespace
}  // namespace fastkv::test
