// Stage times: laps add up, the mean is over the team, whole operations count once.
#include "core/stage_clock.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace fastkv {
namespace {

void pass(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

TEST(StageClock, LapsBelongToTheirStage) {
  StageClocks clocks(2);
  clocks[0].start();
  pass(20);
  clocks[0].lap(Stage::gemm);
  pass(10);
  clocks[0].lap(Stage::attention);
  pass(40);  // nobody's
  clocks[0].start();
  clocks[0].lap(Stage::rest);
  EXPECT_EQ(clocks.whole(Stage::scores, [] { return pass(6), 7; }), 7);
  StageTimes times = clocks.take();
  // means over two threads, of which one worked; sleeping may take longer, never less
  EXPECT_GE(times[Stage::gemm], 10);
  EXPECT_GE(times[Stage::attention], 5);
  EXPECT_GE(times[Stage::scores], 6) << "a whole operation is not divided";
  EXPECT_LT(times[Stage::rest], 5);
  EXPECT_EQ(times[Stage::unpack], 0);
  EXPECT_EQ(times[Stage::wait], 0);
  EXPECT_EQ(clocks.take().total(), 0) << "taken times are gone";
}

TEST(StageTimes, AddUp) {
  StageTimes a, b;
  a[Stage::gemm] = 1;
  b[Stage::gemm] = 2;
  b[Stage::wait] = 4;
  a += b;
  EXPECT_EQ(a[Stage::gemm], 3);
  EXPECT_EQ(a.total(), 7);
  for (int s = 0; s < kStages; ++s) EXPECT_STRNE(name(Stage(s)), "?");
}

}  // namespace
}  // namespace fastkv
