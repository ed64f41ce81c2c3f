// The bandwidth of reading memory: at once, or piece by piece between other work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fastkv/options.hpp"
#include "runtime/memory.hpp"
#include "runtime/parallel.hpp"
#include "simd/peaks.hpp"

namespace fastkv::bench {

/// A buffer that the threads of a team read in every way that may be the fastest one.
class MemoryReader {
 public:
  /// Of `bytes`, at least 1 MiB, at most 1 GiB and an eighth of the memory that is free: caches count as they do for a
  /// model of that size. Each thread touches its part first.
  MemoryReader(ThreadTeam& team, simd::Isa isa, std::size_t bytes, HugePages huge_pages);

  /// Bytes a second of reading all of it, the best of several passes of each way.
  double best(std::span<const simd::Reading> readings = simd::kReadings);

  /// Reads the next piece, a half, in the next way.
  void read_piece();
  /// Bytes a second of the best way over its pieces since the last call; NaN if there were none.
  double take_pieces();

 private:
  struct Pass {
    double bytes = 0, seconds = 0;
    double rate() const { return bytes / seconds; }
  };
  struct Way {
    simd::Reading reading;
    int streams;
    Pass pieces = {};  // all since take_pieces()
  };
  /// Reads `n` bytes of each thread's part, `first` ones on, as often as it takes to read `least` altogether.
  Pass read(const Way& way, std::size_t first, std::size_t n, std::size_t least);

  ThreadTeam& team_;
  simd::Isa isa_;
  std::size_t threads_, part_;  // bytes of each
  Buffer buffer_;
  std::vector<std::uint64_t> sums_;
  std::vector<Way> ways_;
  std::size_t pieces_ = 0;
};

}  // namespace fastkv::bench
