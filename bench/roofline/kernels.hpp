// The kernels of a level at work as the engine uses them, ready to be timed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "simd/kernels.hpp"

namespace fastkv {
class ThreadTeam;
}

namespace fastkv::bench {

/// What a kernel is measured against.
enum class Bound { f32, bf16, i8, memory, cache, exponentials };
const char* name(Bound bound);

struct Kernel {
  std::string name;  ///< entry of the kernel table and what it works on
  std::string shape;
  Bound bound;
  double work;  ///< of one thread's call: operations, or bytes read and written, or exponentials
  std::function<void(int thread)> run;
};

/// Kernels of `isa` for the threads of `team`, each on its own rows and outputs; weights are shared as in the engine.
/// Kernels bound by memory stream through `stream_bytes` (all threads together, beyond the caches if the share is to
/// mean something); matrix products are those of prefill on `product_rows` rows, which the threads share; kernels on
/// rows work in the caches, as in the engine, and have no share. The buffers live as long as the kernels, which call
/// `team`'s barrier.
std::vector<Kernel> kernels_of(simd::Isa isa, ThreadTeam& team, std::size_t stream_bytes, std::int64_t product_rows);

}  // namespace fastkv::bench
