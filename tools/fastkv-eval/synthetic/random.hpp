// Seeded random numbers that are the same on every machine and with every standard library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fastkv::tools {

/// SplitMix64 (Steele, Lea, Flood 2014) with its own mapping to ranges: distributions of the standard library differ
/// between implementations.
class Random {
 public:
  /// Streams of different names under one seed are independent, so that what is drawn for one question never moves
  /// another.
  Random(std::uint64_t seed, std::string_view stream);

  std::uint64_t next();
  /// 0 … n − 1, with 0 < n < 2³².
  std::size_t below(std::size_t n) { return static_cast<std::size_t>((next() >> 32) * n >> 32); }

  template <class T>
  const T& pick(const std::vector<T>& values) {
    return values[below(values.size())];
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }
  /// `count` different elements, in random order.
  template <class T>
  std::vector<T> sample(std::vector<T> values, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) std::swap(values[i], values[i + below(values.size() - i)]);
    values.resize(count);
    return values;
  }

  /// A number of `count` digits, the first not 0.
  std::string number(int count);
  /// `count` letters from `first` ('a' or 'A') on.
  std::string letters(int count, char first);
  /// Version 4, lower case: "3f0c2a9e-7b1d-4c55-9e21-0a6b8c4d2f17".
  std::string uuid();

 private:
  std::uint64_t state_;
};

}  // namespace fastkv::tools
