// Kernels, and how decode hands out their work, as on a CPU that fetches ahead or on one that does not.
#pragma once

#include <utility>

#include "simd/isa.hpp"

namespace fastkv::test {

/// As it says, whatever this CPU does, while the object lives.
class FetchesAhead {
 public:
  explicit FetchesAhead(bool on) : before_(std::exchange(simd::fetches_ahead, on)) {}
  ~FetchesAhead() { simd::fetches_ahead = before_; }
  FetchesAhead(const FetchesAhead&) = delete;
  FetchesAhead& operator=(const FetchesAhead&) = delete;

 private:
  bool before_;
};

}  // namespace fastkv::test
