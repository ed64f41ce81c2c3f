// Each backend operation, on the CPU and on CUDA, against the double oracle: one table of devices, shapes and methods.
#include <memory>
#include <ostream>
#include <sstream>

#include "cuda_test.hpp"
#include "support/cases.hpp"
#include "support/oracle_case.hpp"

namespace fastkv::test {
namespace {

constexpr std::uint64_t kSeed = 20260811;

struct Device {
  const char* name;
  Compute compute;
  Rounding rounding;
};
std::ostream& operator<<(std::ostream& out, const Device& device) { return out << device.name; }

/// What the CUDA backend rounds beyond bfloat16 arithmetic: its cache is bfloat16 too.
Rounding cuda_rounding() {
  Rounding rounding = Rounding::bf16();
  rounding.cache = rounding.attention;
  return rounding;
}

std::vector<Device> devices() {
  return {{"cpu", Compute::bf16, Rounding::bf16()}, {"cuda", Compute::automatic, cuda_rounding()}};
}

std::unique_ptr<Backend> backend_for(const RandomModel& model, const Device& device) {
  EngineOptions options;
  options.device = device.name;
  options.compute = device.compute;
  options.threads = options.threads_batch = 1;
  options.tile_rows = 48;
  std::unique_ptr<Backend> backend = make_backend(options, model.config, model.tensors);
  RunControl control;
  backend->load(model.tensors, {}, control);
  return backend;
}

class Conformance : public testing::TestWithParam<std::tuple<RandomShape, Device>> {
 protected:
  /// Cases are dealt out to the shapes, each to one: an emulated device is slow.
  static std::vector<MethodCase> dealt(const std::vector<MethodCase>& cases, const RandomShape& shape) {
    const std::vector<RandomShape> all = shapes();
    std::vector<MethodCase> out;
    for (std::size_t c = 0; c < cases.size(); ++c)
      if (std::string(all[c % all.size()].name) == shape.name) out.push_back(cases[c]);
    return out;
  }
};

TEST_P(Conformance, EveryOperation) {
  const auto& [shape, device] = GetParam();
  const RandomModel model(shape, kSeed);
  const Oracle oracle(model.config, model.tensors);
  const auto backend = backend_for(model, device);
  for (const MethodCase& one : dealt(method_cases(shape.n_layer), shape)) {
    std::ostringstream where;
    where << model << ", case " << one.name;
    SCOPED_TRACE(where.str());
    OracleCase(model, oracle, one, device.rounding, 2).expect_layers(*backend);
    if (HasFailure()) return;
  }
}

TEST_P(Conformance, EveryMethod) {
  const auto& [shape, device] = GetParam();
  const RandomModel model(shape, kSeed);
  const Oracle oracle(model.config, model.tensors);
  const auto backend = backend_for(model, device);
  for (const MethodCase& one : dealt(rival_cases(model.config), shape)) {
    std::ostringstream where;
    where << model << ", case " << one.name;
    SCOPED_TRACE(where.str());
    OracleCase(model, oracle, one, device.rounding, 1).expect_prefill(*backend, one.method.method != MethodName::adakv);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Conformance,
                         testing::Combine(testing::ValuesIn(shapes()), testing::ValuesIn(devices())),
                         [](const auto& param) {
                           return std::string(std::get<0>(param.param).name) + "_" + std::get<1>(param.param).name;
                         });

// Prompts beyond a tile of attention, a split of decode and a range of column sums.
class LongConformance : public testing::TestWithParam<Device> {};

TEST_P(LongConformance, EveryOperation) {
  const RandomModel model(long_shape(), kSeed);
  const Oracle oracle(model.config, model.tensors);
  const auto backend = backend_for(model, GetParam());
  for (const MethodCase& one : long_cases(model.config.n_layer)) {
    SCOPED_TRACE(one.name);
    OracleCase(model, oracle, one, GetParam().rounding, 1).expect_layers(*backend);
    if (HasFailure()) return;
  }
  for (const MethodCase& one : long_column_cases(model.config.n_layer)) {
    SCOPED_TRACE(one.name);
    OracleCase(model, oracle, one, GetParam().rounding, 1).expect_prefill(*backend, true);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, LongConformance, testing::ValuesIn(devices()),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace fastkv::test
