// Each backend operation, on the CPU and on CUDA, against the double oracle: one table of devices, shapes and methods.
#include <memory>
#include <ostream>
#include <sstream>

#include "cuda_rounding.hpp"
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
  RandomModel model_{std::get<RandomShape>(GetParam()), kSeed};

  /// expect(OracleCase, MethodCase, Backend) of this shape's share of the cases: an emulated device is slow.
  template <class Expect>
  void each(const std::vector<MethodCase>& cases, int spread_runs, const Expect& expect) {
    const auto& [shape, device] = GetParam();
    const Oracle oracle(model_.config, model_.tensors);
    const auto backend = backend_for(model_, device);
    const std::vector<RandomShape> all = shapes();
    for (std::size_t c = 0; c < cases.size() && !HasFailure(); ++c) {
      if (std::string(all[c % all.size()].name) != shape.name) continue;
      std::ostringstream where;
      where << model_ << ", case " << cases[c].name;
      SCOPED_TRACE(where.str());
      expect(OracleCase(model_, oracle, cases[c], device.rounding, spread_runs), cases[c], *backend);
    }
  }
};

TEST_P(Conformance, EveryOperation) {
  each(method_cases(model_.config.n_layer), 2,
       [](const OracleCase& found, const MethodCase&, Backend& backend) { found.expect_layers(backend); });
}

TEST_P(Conformance, EveryMethod) {
  each(rival_cases(model_.config), 1, [](const OracleCase& found, const MethodCase& one, Backend& backend) {
    found.expect_prefill(backend, one.method.method != MethodName::adakv);
  });
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
