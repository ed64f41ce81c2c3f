// fastkv-eval kld on a device, as it is called: compared with full on the CPU in float32.
#include <cmath>

#include "core/json.hpp"
#include "cuda_test.hpp"
#include "fastkv-eval/subcommands.hpp"
#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

TEST(CudaEval, TheBaseRunsOnTheCpu) {
  const std::string model = (fixtures() / "models" / "stories260K-f32.gguf").string();
  FASTKV_REQUIRE_FILE(model);
  const Scratch scratch;
  const std::string text = scratch.write("text",
                                         "Once upon a time there was a little dog who lived in a big house. "
                                         "The dog liked to run in the park and to play with the children.");
  const std::string result = scratch / "result.json";
  const char* const arguments[] = {"kld", "--device", "cuda",        "-m", model.c_str(), "-f",   text.c_str(),
                                   "-c",  "32",       "--limit",     "1",  "--method",    "full", "--base-compute",
                                   "f32", "-o",       result.c_str()};
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = tools::run_kld(int(std::size(arguments)), arguments);
  testing::internal::GetCapturedStdout();
  const std::string err = testing::internal::GetCapturedStderr();
  ASSERT_EQ(status, 0) << err;
  const Json json = Json::parse(file_bytes(result));
  EXPECT_EQ(json["settings"]["base_compute"], "f32");
  EXPECT_EQ(json["machine"]["compute"], "bf16");
  const double kl = json["scores"][0]["kl"]["mean"];
  EXPECT_TRUE(kl > 0 && kl <= 0.001) << kl << ": two arithmetics, the same distributions";
}

}  // namespace
}  // namespace fastkv::test
