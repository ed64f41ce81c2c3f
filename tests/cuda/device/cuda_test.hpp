// What a test of device code may ask for, here of a real device: its own schedule, a reason to skip where there is
// none.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <functional>

/// Skips the test where there is no device.
#define FASTKV_REQUIRE_DEVICE()                                                \
  do {                                                                         \
    int fastkv_devices = 0;                                                    \
    const cudaError_t fastkv_status = cudaGetDeviceCount(&fastkv_devices);     \
    if (fastkv_status != cudaSuccess || fastkv_devices == 0)                   \
      GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(fastkv_status); \
  } while (false)

namespace fastkv::test {

/// The device schedules as it likes; twice, so that a race has a second chance to show.
inline void for_each_schedule(const std::function<void()>& body) {
  for (int run = 0; run < 2; ++run) {
    SCOPED_TRACE(testing::Message() << "run " << run);
    body();
  }
}

}  // namespace fastkv::test
