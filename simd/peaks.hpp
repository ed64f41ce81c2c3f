// Loops that do nothing but arithmetic on registers, or reading: the most that one core can do of either, for
// benchmarks to measure shares against.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/isa.hpp"

namespace fastkv::simd {

/// Independent dot products or multiply-adds on registers, twelve chains of them: no load, no store, no dependency that
/// waits.
struct PeakLoop {
  const char* instruction;  ///< "vpdpbusd zmm"
  double operations;        ///< multiplications and additions of a round
  void (*run)(std::int64_t rounds);
};

/// The fastest loop of a level for each arithmetic of KernelTable; a level without dot products of a type has the
/// loop that its kernels fall back to (bfloat16 on float32 FMAs).
struct Peaks {
  PeakLoop f32, bf16, i8;
};
const Peaks& peaks(Isa isa);

/// How a loop reads memory: loads alone, so that what comes next is left to the hardware's prefetchers, or also fetching
/// ahead itself, which they do not do beyond the end of a page.
enum class Reading { plain, fetching };
inline constexpr Reading kReadings[] = {Reading::plain, Reading::fetching};

/// Reads all of `data` [bytes] once in the widest vectors of a level, in `streams` equal parts at the same time (each a
/// multiple of 256 bytes); returns a value that depends on every byte, so that nothing can be left out. Which is fastest
/// depends on the machine and on the level of memory: on a Xeon 6, 2 streams with fetching read 39 GB/s from memory where
/// 1 reads 33, and 4 are best from L3; loads alone read 32. On a Zen 4 loads alone are best, of 64 bytes 40 GB/s where
/// those of 16 read 32.
std::uint64_t read_streams(Isa isa, const void* data, std::size_t bytes, int streams, Reading reading);
inline constexpr int kReadStreams[] = {1, 2, 4};

}  // namespace fastkv::simd
