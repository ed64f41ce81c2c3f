// The one comparator of floating-point results in tests: |actual − expected| ≤ bound, with nothing let through by
// accident.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace fastkv::test {

/// Unit roundoff of float32.
inline constexpr double kEps = 0x1p-24;

/// True when |actual − expected| ≤ bound. NaN on any side never passes; infinity only equals the same infinity.
inline bool is_close(double actual, double expected, double bound) {
  if (std::isnan(actual) || std::isnan(expected) || !(bound >= 0)) return false;
  if (std::isinf(actual) || std::isinf(expected)) return actual == expected;
  return std::abs(actual - expected) <= bound;
}

/// The result of is_close with a message that gives every number involved.
inline testing::AssertionResult close(double actual, double expected, double bound) {
  if (is_close(actual, expected, bound)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "actual " << testing::PrintToString(actual) << ", expected "
                                     << testing::PrintToString(expected) << ", difference " << actual - expected
                                     << ", bound " << bound;
}

/// Element by element; `bounds` holds one bound for each. Reports the first element outside and how many there are.
template <class A, class E>
testing::AssertionResult close(std::span<const A> actual, std::span<const E> expected, std::span<const double> bounds) {
  if (actual.size() != expected.size() || bounds.size() != expected.size()) {
    return testing::AssertionFailure() << actual.size() << " values, expected " << expected.size() << ", with "
                                       << bounds.size() << " bounds";
  }
  std::size_t outside = 0, first = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (!is_close(double(actual[i]), double(expected[i]), bounds[i]) && outside++ == 0) first = i;
  }
  if (outside == 0) return testing::AssertionSuccess();
  return close(double(actual[first]), double(expected[first]), bounds[first])
         << " at index " << first << "; " << outside << " of " << actual.size() << " values are outside";
}
template <class A, class E>
testing::AssertionResult close(std::span<const A> actual, std::span<const E> expected, double bound) {
  const std::vector<double> bounds(expected.size(), bound);
  return close(actual, expected, std::span<const double>(bounds));
}

/// Fails the current test unless close(...).
inline void expect_close(double actual, double expected, double bound) { EXPECT_TRUE(close(actual, expected, bound)); }
template <class A, class E, class B>
  requires(!std::is_arithmetic_v<A>)
void expect_close(const A& actual, const E& expected, const B& bound) {
  using Actual = const typename A::value_type;
  using Expected = const typename E::value_type;
  if constexpr (std::is_arithmetic_v<B>) {
    EXPECT_TRUE(close(std::span<Actual>(actual), std::span<Expected>(expected), double(bound)));
  } else {
    EXPECT_TRUE(close(std::span<Actual>(actual), std::span<Expected>(expected), std::span<const double>(bound)));
  }
}

}  // namespace fastkv::test
