// The fixture of every kernel test: one run per ISA level, skipped where this CPU lacks the level; seeded random data.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "simd/kernels.hpp"
#include "support/compare.hpp"
#include "support/fetches_ahead.hpp"

namespace fastkv::simd {

inline void PrintTo(Isa isa, std::ostream* out) { *out << name(isa); }

}  // namespace fastkv::simd

namespace fastkv::test {

/// A 64-byte aligned array of exactly n elements, zeroed; an access beyond it is one that a sanitizer sees.
template <class T>
class Aligned {
 public:
  using value_type = T;
  explicit Aligned(std::size_t n) : size_(n), data_(static_cast<T*>(::operator new[](n * sizeof(T), kAlign))) {
    std::fill_n(data_.get(), n, T{});
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(T* p) const { ::operator delete[](p, kAlign); }
  };
  std::size_t size_;
  std::unique_ptr<T[], Free> data_;
};

/// Sizes around the widths of vectors.
inline const std::vector<int> kSizes = {1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 127, 128, 130};

class KernelTest : public testing::TestWithParam<simd::Isa> {
 protected:
  void SetUp() override {
    if (!simd::supported(GetParam())) GTEST_SKIP() << "this CPU cannot run " << simd::name(GetParam());
  }
  const simd::KernelTable& kernels() const { return simd::kernels(GetParam()); }

  static constexpr unsigned kSeed = 20260807;  // printed with each failure through SCOPED_TRACE of the tests
  std::mt19937 random{kSeed};
  float uniform(float lo, float hi) { return std::uniform_real_distribution<float>(lo, hi)(random); }
  int integer(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(random); }
  /// n values of both signs and several magnitudes.
  Aligned<float> values(std::size_t n) {
    Aligned<float> v(n);
    for (float& x : v) x = uniform(-1, 1) * std::ldexp(1.f, integer(-3, 3));
    return v;
  }
};

inline std::string isa_name(const testing::TestParamInfo<simd::Isa>& info) { return simd::name(info.param); }

/// Bit patterns, for comparisons that must be bitwise.
template <class C>
std::vector<std::uint32_t> bits(const C& values) {
  std::vector<std::uint32_t> out;
  for (const float x : values) {
    std::uint32_t b;
    std::memcpy(&b, &x, sizeof b);
    out.push_back(b);
  }
  return out;
}

}  // namespace fastkv::test

/// Runs a suite of KernelTest once for every ISA level, the level's name in the test's name.
#define FASTKV_EVERY_ISA(suite) \
  INSTANTIATE_TEST_SUITE_P(EveryIsa, suite, testing::ValuesIn(fastkv::simd::kIsas), fastkv::test::isa_name)
