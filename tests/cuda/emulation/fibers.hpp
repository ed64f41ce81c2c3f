// Runs a kernel on the host: blocks one after another, the threads of a block as fibers that stop where they wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "control.hpp"
#include "vector_types.h"

namespace emulation {

struct Block;

/// An asynchronous copy of 16 bytes that has been issued and has not landed.
struct Copy {
  void* to;
  const void* from;  ///< null: zeros
  std::uint32_t group;
};

/// One thread of the block that runs.
struct Thread {
  uint3 index{};
  Block* block = nullptr;
  int number = 0;  ///< in the block
  bool started = false;
  bool awaited = false;  ///< the kernel before this one
  void* context = nullptr;  ///< where the fiber goes on
  void* stack = nullptr;
  std::vector<Copy> copies;
  std::uint32_t group = 0;  ///< of copies issued now
  int lane() const { return number & 31; }
};

/// The block that an operating system thread runs at the moment.
struct Block {
  uint3 index{};
  dim3 size, grid;
  unsigned char* shared = nullptr;  ///< dynamic shared memory
  std::size_t shared_bytes = 0;
  bool early_copies = false;
};

extern thread_local constinit Thread* current;

/// A combine() gets what each arrived lane passed (null: absent) and the mask of those lanes.
using Combine = void (*)(void* const* lanes, std::uint32_t present);

/// What `what` of a warp does: waits until all living lanes of `mask` are here; the last one runs combine().
void collective(const char* what, std::uint32_t mask, void* data, Combine combine);

struct Votes {
  int count;  ///< threads whose predicate held
  int of;     ///< threads that took part
};
/// A barrier of the block's living threads.
Votes barrier(const char* what, bool predicate);

/// Runs `kernel` once per thread of `grid` × `block`. Throws what a thread throws, or Fault.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace emulation
