// What a test of device code may ask for, here of a real device, which schedules as it likes. Without one all tests are
// skipped (no_device.cpp).
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>

namespace fastkv::test {

inline constexpr bool kDeviceIsSlow = false;

/// Tokens whose distributions are compared with the CPU's.
inline constexpr std::size_t kDivergenceTokens = 2048;

/// Twice, so that a race has a second chance to show.
inline void for_each_schedule(const std::function<void()>& body) {
  for (int run = 0; run < 2; ++run) {
    SCOPED_TRACE(testing::Message() << "run " << run);
    body();
  }
}

}  // namespace fastkv::test
