// What a test of device code may ask for, here of the emulated device: schedules, device memory as vectors.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>

#include "cuda/emulation/control.hpp"

namespace fastkv::test {

/// Long tests on real models are left to real devices.
inline constexpr bool kDeviceIsSlow = true;

/// Tokens whose distributions are compared with the CPU's: as many as the emulated device takes a minute for.
inline constexpr std::size_t kDivergenceTokens = 512;

/// Runs `body` under each schedule of threads: a result that differs between them shows a barrier that is missing. The
/// host may not touch device memory meanwhile.
inline void for_each_schedule(const std::function<void()>& body) {
  using emulation::Order;
  for (const emulation::Schedule& schedule :
       {emulation::Schedule{Order::forward, 0, false}, emulation::Schedule{Order::backward, 0, true},
        emulation::Schedule{Order::shuffled, 1, false}, emulation::Schedule{Order::shuffled, 2, true}}) {
    SCOPED_TRACE(testing::Message() << "order " << int(schedule.order) << ", seed " << schedule.seed
                                    << ", early copies " << schedule.early_copies);
    const emulation::Scheduled scope(schedule);
    const emulation::Guarded guarded;
    body();
  }
}

}  // namespace fastkv::test
