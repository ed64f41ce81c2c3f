// Rounding imitated at random, with the size that an arithmetic's own has: the oracle's source of errors.
#pragma once

#include <random>
#include <vector>

#include "reference/oracle.hpp"

namespace fastkv::test {

/// x padded with zeros to a multiple of 64, each block of 64 multiplied by the Hadamard matrix / 8, its own inverse.
std::vector<double> rotated(std::vector<double> x);

class Rounder {
 public:
  explicit Rounder(const Rounding& size) : size_(size), random_(size.seed) {}

  /// Each element by up to `relative` of itself.
  std::vector<double> elements(std::vector<double> x, double relative);
  /// The row y = x·W that an arithmetic gets: inputs rounded, weights rounded.
  std::vector<double> product(const Oracle::Linear& w, const std::vector<double>& x);
  /// A row of K or V as the cache stores it.
  std::vector<double> cached(std::vector<double> x);
  const Rounding& size() const { return size_; }

 private:
  double jitter() { return std::uniform_real_distribution<double>(-1, 1)(random_); }
  std::vector<double> groups(const std::vector<double>& x, double share);

  const Rounding& size_;
  std::mt19937_64 random_;
};

}  // namespace fastkv::test
