// Skips every test, with the reason, where there is no CUDA device.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <iostream>

namespace fastkv::test {
namespace {

class Device : public testing::Environment {
 public:
  void SetUp() override {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess && count > 0) return;
    std::cout << "[  SKIPPED ] all of it: no CUDA device: " << cudaGetErrorString(status) << "\n";  // what ctest reads
    GTEST_SKIP();
  }
};

const auto* const device = testing::AddGlobalTestEnvironment(new Device);

}  // namespace
}  // namespace fastkv::test
