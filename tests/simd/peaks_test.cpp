// The loops that measure limits: each runs on its level and takes time in proportion to its rounds.
#include "simd/peaks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

namespace fastkv::simd {
namespace {

class PeakLoops : public testing::TestWithParam<Isa> {};

double seconds(const PeakLoop& loop, std::int64_t rounds) {
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    loop.run(rounds);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

TEST_P(PeakLoops, DoWork) {
  if (!supported(GetParam())) GTEST_SKIP() << "this CPU cannot run " << name(GetParam());
  for (const PeakLoop& loop : {peaks(GetParam()).f32, peaks(GetParam()).bf16, peaks(GetParam()).i8}) {
    const double rate = loop.operations * 100000 / seconds(loop, 100000);
    EXPECT_GT(rate, 1e8) << loop.instruction;
    EXPECT_LT(rate, 1e14) << loop.instruction << ": the loop was left out";
    EXPECT_GT(seconds(loop, 400000), 2 * seconds(loop, 100000)) << loop.instruction;
  }
}

TEST_P(PeakLoops, ReadEveryByte) {
  if (!supported(GetParam())) GTEST_SKIP() << "this CPU cannot run " << name(GetParam());
  alignas(64) static std::uint8_t data[4096];
  for (const Reading reading : kReadings) {
    for (const int streams : kReadStreams) {
      const std::uint64_t before = read_streams(GetParam(), data, sizeof data, streams, reading);
      for (std::size_t i = 0; i < sizeof data; ++i) {
        data[i] ^= 1;
        EXPECT_NE(read_streams(GetParam(), data, sizeof data, streams, reading), before) << i;
        data[i] ^= 1;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, PeakLoops, testing::ValuesIn(kIsas),
                         [](const testing::TestParamInfo<Isa>& level) { return std::string(name(level.param)); });

}  // namespace
}  // namespace fastkv::simd
