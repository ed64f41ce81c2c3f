// fastkv-bench on a device, as it is called: the roofline's table and JSON, and shares of the device's own limits.
#include <cmath>
#include <set>

#include "bench/modes.hpp"
#include "bench/roofline/roofline.hpp"
#include "core/json.hpp"
#include "cuda_test.hpp"
#include "support/fixtures.hpp"

namespace fastkv::test {
namespace {

class CudaBench : public testing::Test {
 protected:
  void SetUp() override { FASTKV_REQUIRE_FILE(model_); }
  std::string roofline(std::vector<const char*> arguments) const {
    arguments.insert(arguments.begin(), {"roofline", "--device", "cuda", "--quick", "-r", "2"});
    testing::internal::CaptureStdout();
    const int status = bench::run_roofline(int(arguments.size()), arguments.data());
    const std::string out = testing::internal::GetCapturedStdout();
    EXPECT_EQ(status, 0) << out;
    return out;
  }
  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
};

bool is_positive(const Json& x) { return x.is_number() && std::isfinite(x.get<double>()) && x.get<double>() > 0; }

TEST_F(CudaBench, RooflineMeasuresTheDevice) {
  const Json rows = Json::parse(roofline({"-m", model_.c_str(), "-p", "64", "-n", "3", "-d", "32", "-o", "json"}));
  std::set<std::string> names;
  double product = 0;
  for (const Json& row : rows) {
    SCOPED_TRACE(row.dump());
    const std::string name = row["kernel"];
    names.insert(name);
    EXPECT_TRUE(is_positive(row["median"]));
    EXPECT_EQ(row["isa"].get<std::string>().rfind("sm_", 0), 0u);
    EXPECT_FALSE(row["gpu_info"].get<std::string>().empty());
    const bool whole = name.rfind("prefill ", 0) == 0 || name.rfind("decode ", 0) == 0;
    const bool limit = name == "read" || name.rfind("peak bf16: cublasLt ", 0) == 0;
    EXPECT_EQ(row["call_us"].is_null(), whole || limit);
    if (!row["call_us"].is_null()) {
      EXPECT_TRUE(is_positive(row["call_us"]));
    }
    // a limit is the most of two rounds: no less than the median, and a product's share is of it
    if (limit && row["bound"] == "bf16") product = row["median"];
    EXPECT_EQ(row["share_of_peak"].is_null(), limit || row["bound"] == "");
    if (row["share_of_peak"].is_null()) continue;
    EXPECT_TRUE(is_positive(row["share_of_peak"]));
    if (!whole && row["bound"] == "bf16") {
      EXPECT_LE(row["share_of_peak"].get<double>(), 1.0001 * row["median"].get<double>() / product);
    }
  }
  for (const char* name : {"read", "gemm q", "attention_prefill", "column_scores", "top_k", "rms_norm", "gate_up bf16",
                           "attention_decode bf16", "arg_max", "prefill pp64", "decode tg3 @ d32"})
    EXPECT_TRUE(names.count(name)) << name;
}

TEST_F(CudaBench, WithoutAModelTheTableIsOfLlama8B) {
  if (kDeviceIsSlow) GTEST_SKIP() << "a gigabyte of weights in fibers";
  const std::string table = roofline({});
  EXPECT_NE(table.find("us a call"), std::string::npos) << table;
  EXPECT_NE(table.find("16 x 4096 x 28672"), std::string::npos) << table;
}

TEST_F(CudaBench, TheTableIsTheCpus) {
  const std::string table = roofline({"-m", model_.c_str(), "-p", "16", "-n", "2"});
  for (const char* word : {"kernel", "threads", "of the bound", "us a call", "gemm gate and up", "decode tg2"})
    EXPECT_NE(table.find(word), std::string::npos) << word << " in " << table;
}

TEST_F(CudaBench, OneNumberOfThreads) {
  const char* const arguments[] = {"roofline", "--device", "cuda", "-t", "1,2"};
  try {
    bench::run_roofline(5, arguments);
    ADD_FAILURE() << "no error";
  } catch (const std::exception& error) {
    EXPECT_STREQ(error.what(), "--threads: one number with --device cuda");
  }
}

}  // namespace
}  // namespace fastkv::test
