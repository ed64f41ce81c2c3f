// A forced ISA level is the one that runs, and an impossible one is refused.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "support/cases.hpp"
#include "support/engine_run.hpp"
#include "support/fixtures.hpp"
#include "support/model_file.hpp"

namespace fastkv::test {
namespace {

/// Sets an environment variable and puts the old value back.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value, 1);
  }
  ~Environment() { old_.empty() ? unsetenv(name_) : setenv(name_, old_.c_str(), 1); }

 private:
  const char* name_;
  std::string old_;
};

RandomModel model_for_isas() {
  return RandomModel({"isa", 2, 96, 128, 4, 2, 64, 301, {DType::f32}, false, false, false}, 5);
}

TEST(Isa, ForcedByOption) {
  const RandomModel model = model_for_isas();
  const ModelFile file(model);
  for (simd::Isa isa : isas()) {
    EngineOptions options = engine_options(file.path(), Compute::bf16);
    options.isa = simd::name(isa);
    EXPECT_EQ(Engine(options).info().isa, simd::name(isa));
  }
  EXPECT_EQ(Engine(engine_options(file.path(), Compute::bf16)).info().isa,
            std::getenv("FASTKV_ISA") ? std::getenv("FASTKV_ISA") : simd::name(simd::best_isa()));
}

TEST(Isa, ForcedByEnvironment) {
  const RandomModel model = model_for_isas();
  const ModelFile file(model);
  for (simd::Isa isa : isas()) {
    const Environment forced("FASTKV_ISA", simd::name(isa));
    EXPECT_EQ(Engine(engine_options(file.path(), Compute::f32)).info().isa, simd::name(isa));
  }
}

// Rounding differs between the plain level, which rounds products and sums apart, and those that fuse them: equal bits
// from both would mean that one of them did not run.
TEST(Isa, DifferentCodeRan) {
  if (!simd::supported(simd::Isa::avx2)) GTEST_SKIP() << "only the scalar level runs here";
  const RandomModel model = model_for_isas();
  const ModelFile file(model);
  std::map<simd::Isa, RunResult> results;
  for (simd::Isa isa : {simd::Isa::scalar, simd::Isa::avx2}) {
    EngineOptions options = engine_options(file.path(), Compute::f32);
    options.gemm = Gemm::native;
    options.isa = simd::name(isa);
    Engine engine(options);
    engine.load();
    MethodOptions full;
    full.method = MethodName::full;
    results[isa] = engine.run(model.prompt(70), greedy(full, 1));
  }
  EXPECT_NE(results[simd::Isa::scalar].trace.first_logits, results[simd::Isa::avx2].trace.first_logits);
}

TEST(Isa, ImpossibleOnesAreRefused) {
  const RandomModel model = model_for_isas();
  const ModelFile file(model);
  std::vector<std::string> wrong = {"avx1024"};
  for (simd::Isa isa : simd::kIsas)
    if (!simd::supported(isa)) wrong.push_back(simd::name(isa));
  for (const std::string& name : wrong) {
    EngineOptions options = engine_options(file.path(), Compute::f32);
    options.isa = name;
    try {
      const Engine engine(options);
      FAIL() << name << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_option);
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("scalar"), std::string::npos) << "others are listed: " << error.what();
    }
  }
}

}  // namespace
}  // namespace fastkv::test
