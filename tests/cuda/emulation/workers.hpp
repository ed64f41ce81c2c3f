// The operating system threads that share the blocks of a grid or of a matrix.
#pragma once

#include <cstdint>
#include <functional>

namespace emulation {

/// task(i) for each i < count, on up to schedule().workers threads, the caller's among them; throws what a task throws
/// first. `enter` runs on each thread before its first task.
void share(
    std::uint64_t count, const std::function<void(std::uint64_t)>& task, const std::function<void()>& enter = [] {});

}  // namespace emulation
