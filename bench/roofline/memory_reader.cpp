// Passes over a buffer, timed.
#include "bench/roofline/memory_reader.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "bench/roofline/limits.hpp"
#include "runtime/shared_work.hpp"

namespace fastkv::bench {

namespace {

constexpr int kPasses = 3;
constexpr std::size_t kLeast = std::size_t{1} << 20, kMost = std::size_t{1} << 30;
constexpr std::size_t kPieces = 2;
constexpr std::size_t kStep = 1024 * kPieces;               // of a piece each of the streams has whole turns
constexpr std::size_t kItemBytes = std::size_t{128} << 10;  // what a thread may have left when the others are done
// bytes that take measurable time
constexpr std::size_t kPassBytes = std::size_t{64} << 20, kPieceBytes = std::size_t{8} << 20;

std::size_t part_of(std::size_t bytes, std::size_t threads) {
  const std::size_t most = std::clamp(available_memory_bytes() / 8, kLeast, kMost);  // beside a model that fills memory
  return std::max(kStep, std::clamp(bytes, kLeast, most) / threads / kStep * kStep);
}

}  // namespace

MemoryReader::MemoryReader(ThreadTeam& team, simd::Isa isa, std::size_t bytes, HugePages huge_pages)
    : team_(team),
      isa_(isa),
      threads_(static_cast<std::size_t>(team.size())),
      part_(part_of(bytes, threads_)),
      buffer_(part_ * threads_, "bandwidth buffer", huge_pages),
      sums_(threads_ * 8) {
  team_.run([&](int thread) {
    std::memset(buffer_.as<std::uint8_t>() + part_ * static_cast<std::size_t>(thread), thread + 1, part_);
  });
  for (const simd::Reading reading : simd::kReadings)
    for (const int streams : simd::kReadStreams) ways_.push_back({reading, streams});
}

MemoryReader::Pass MemoryReader::read(const Way& way, std::size_t first, std::size_t n, std::size_t least) {
  const std::size_t times = std::max<std::size_t>(1, least / (n * threads_));
  // Items of the threads' parts, each part `times` over. A thread that is done takes others' as decode does: in halves
  // of their own, two Zen 4 cores beside other guests read up to 15 % slower than decode did.
  const auto per = static_cast<std::int64_t>((n + kItemBytes - 1) / kItemBytes),
             run = per * static_cast<std::int64_t>(times);
  SharedWork work(team_);
  const double seconds = seconds_on(team_, [&](int thread) {
    std::uint64_t sum = 0;
    for (Range items; (items = work.next(thread, run * team_.size(), per)).begin < items.end;) {
      while (items.begin < items.end) {
        const std::int64_t at = items.begin % run % per, end = std::min(per, at + items.end - items.begin);
        const std::size_t begin = static_cast<std::size_t>(at) * kItemBytes,
                          bytes = std::min(n, static_cast<std::size_t>(end) * kItemBytes) - begin,
                          part = static_cast<std::size_t>(items.begin / run) * part_;
        sum += simd::read_streams(isa_, buffer_.as<std::uint8_t>() + part + first + begin, bytes, way.streams,
                                  way.reading);
        items.begin += end - at;
      }
    }
    sums_[static_cast<std::size_t>(thread) * 8] = sum;
  });
  return {static_cast<double>(n * threads_ * times), seconds};
}

double MemoryReader::best(std::span<const simd::Reading> readings) {
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    for (const Way& way : ways_) {
      if (std::find(readings.begin(), readings.end(), way.reading) == readings.end()) continue;
      best = std::max(best, read(way, 0, part_, kPassBytes).rate());
    }
  }
  return best;
}

void MemoryReader::read_piece() {
  Way& way = ways_[pieces_ % ways_.size()];
  const std::size_t n = part_ / kPieces;
  const Pass piece = read(way, pieces_++ % kPieces * n, n, kPieceBytes);
  way.pieces.bytes += piece.bytes;
  way.pieces.seconds += piece.seconds;
}

double MemoryReader::take_pieces() {
  double best = std::numeric_limits<double>::quiet_NaN();
  for (Way& way : ways_) {
    best = std::fmax(best, std::exchange(way.pieces, {}).rate());  // NaN is no number to fmax
  }
  return best;
}

}  // namespace fastkv::bench
