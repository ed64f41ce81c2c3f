// The fibers' scheduler: who runs next, warp collectives, barriers, deadlocks.
#include "fibers.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <boost/context/detail/fcontext.hpp>
#include <exception>
#include <numeric>
#include <random>
#include <sstream>
#include <utility>

#include "workers.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

thread_local constinit Thread* current = nullptr;

namespace {

namespace context = boost::context::detail;

constexpr std::size_t kStackBytes = 256 << 10, kPage = 4096, kMaxThreads = 1024;
std::atomic<std::uint64_t> launch_count{0};

/// A collective that some lanes of a warp wait at.
struct Pending {
  const char* what;
  Combine combine;
  std::uint32_t mask, arrived;
  std::array<void*, 32> data;
};

struct Warp {
  std::uint32_t alive = 0;
  std::vector<Pending> pending;
};

/// Memory whose end touches a page that nobody may read.
class GuardedBytes {
 public:
  GuardedBytes() = default;
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  ~GuardedBytes() {
    if (base_) munmap(base_, size_ + kPage);
  }
  /// At least `bytes`, and their end (its alignment kept) at the guard.
  unsigned char* reserve(std::size_t bytes, std::size_t alignment) {
    const std::size_t wanted = (bytes + kPage - 1) / kPage * kPage;
    if (wanted > size_ || !base_) {
      if (base_) munmap(base_, size_ + kPage);
      base_ = static_cast<unsigned char*>(
          mmap(nullptr, wanted + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      if (base_ == MAP_FAILED) throw std::bad_alloc();
      mprotect(base_ + wanted, kPage, PROT_NONE);
      size_ = wanted;
    }
    return base_ + size_ - (bytes + alignment - 1) / alignment * alignment;
  }

 private:
  unsigned char* base_ = nullptr;
  std::size_t size_ = 0;
};

/// What one operating system thread needs to run blocks.
class Worker {
 public:
  Worker() : threads_(kMaxThreads) {}
  ~Worker() {
    for (void* stack : stacks_) munmap(stack, kStackBytes);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void prepare(dim3 grid, dim3 size, std::size_t shared_bytes, const std::function<void()>& kernel,
               const Schedule& schedule) {
    kernel_ = &kernel;
    block_.grid = grid;
    block_.size = size;
    block_.shared_bytes = shared_bytes;
    block_.shared = shared_bytes ? shared_.reserve(shared_bytes, 128) : nullptr;
    block_.early_copies = schedule.early_copies;
    schedule_ = schedule;
    count_ = int(size.x * size.y * size.z);
    thread_of_.resize(std::size_t(count_));
    rank_of_.resize(std::size_t(count_));
    std::iota(thread_of_.begin(), thread_of_.end(), 0);
    if (schedule.order == Order::backward) std::reverse(thread_of_.begin(), thread_of_.end());
    index_ranks();
  }

  void run_block(uint3 index, std::uint64_t number) {
    reset(index, number);
    if (Thread* first = next()) resume(*first, root_);
    current = nullptr;
    if (alive_ > 0) free_stacks_ = stacks_;  // those of threads that will never go on
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    if (alive_ > 0) throw Fault(deadlock());
  }

  void collective(const char* what, std::uint32_t mask, void* data, Combine combine) {
    Thread& me = *current;
    Warp& warp = warps_[std::size_t(me.number / 32)];
    const std::uint32_t bit = 1u << me.lane();
    if (!(mask & bit)) throw Fault(where(me) + " calls " + what + " with a mask that leaves its lane out");
    std::size_t at = 0;
    while (at < warp.pending.size() && warp.pending[at].mask != mask) ++at;
    if (at == warp.pending.size()) warp.pending.push_back({what, combine, mask, 0, {}});
    Pending& pending = warp.pending[at];
    if (pending.combine != combine) {
      throw Fault(where(me) + " calls " + what + " while lanes of its warp wait at " + pending.what);
    }
    pending.arrived |= bit;
    pending.data[std::size_t(me.lane())] = data;
    if (!complete(warp, at, me.number / 32 * 32, &me)) leave(me.context);
  }

  Votes barrier(const char* what, bool predicate) {
    Thread& me = *current;
    if (waiting_.empty()) {
      barrier_ = what;
      votes_ = {0, 0};
    } else if (barrier_ != what) {
      throw Fault(where(me) + " is at " + what + " while others of its block wait at " + barrier_);
    }
    votes_.count += predicate;
    ++votes_.of;
    waiting_.push_back(me.number);
    if (int(waiting_.size()) == alive_) {
      open_barrier();
      unready(me.number);
    } else {
      leave(me.context);
    }
    return result_;
  }

 private:
  static void save(context::transfer_t from) {
    if (from.data) *static_cast<void**>(from.data) = from.fctx;
  }

  void reset(uint3 index, std::uint64_t number) {
    block_.index = index;
    alive_ = count_;
    error_ = nullptr;
    waiting_.clear();
    if (schedule_.order == Order::shuffled) {
      std::mt19937_64 random(schedule_.seed * 0x9e3779b97f4a7c15u + number);
      std::shuffle(thread_of_.begin(), thread_of_.end(), random);
      index_ranks();
    }
    if (block_.shared_bytes) std::fill_n(block_.shared, block_.shared_bytes, 0xff);
    const dim3 size = block_.size;
    for (int t = 0; t < count_; ++t) {
      Thread& thread = threads_[std::size_t(t)];
      const unsigned n = unsigned(t);
      thread.index = {n % size.x, n / size.x % size.y, n / (size.x * size.y)};
      thread.block = &block_;
      thread.number = t;
      thread.started = false;
      thread.copies.clear();
      thread.group = 0;
    }
    warps_.resize(std::size_t(count_ + 31) / 32);
    for (std::size_t w = 0; w < warps_.size(); ++w) {
      const int lanes = std::min(32, count_ - int(w) * 32);
      warps_[w].alive = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
      warps_[w].pending.clear();
    }
    for (std::size_t w = 0; w < ready_.size(); ++w) {
      const int threads = std::clamp(count_ - int(w) * 64, 0, 64);
      ready_[w] = threads == 64 ? ~0ull : (1ull << threads) - 1;
    }
    lowest_ = 0;
  }
  void index_ranks() {
    for (std::size_t r = 0; r < thread_of_.size(); ++r) rank_of_[std::size_t(thread_of_[r])] = int(r);
  }

  void ready(int thread) {
    const std::size_t rank = std::size_t(rank_of_[std::size_t(thread)]);
    ready_[rank / 64] |= 1ull << (rank % 64);
    lowest_ = std::min(lowest_, rank / 64);
  }
  void unready(int thread) {
    const std::size_t rank = std::size_t(rank_of_[std::size_t(thread)]);
    ready_[rank / 64] &= ~(1ull << (rank % 64));
  }
  /// Takes the first ready thread; null: none is.
  Thread* next() {
    for (; lowest_ < ready_.size(); ++lowest_) {
      if (const std::uint64_t word = ready_[lowest_]) {
        ready_[lowest_] = word & (word - 1);
        return &threads_[std::size_t(thread_of_[lowest_ * 64 + std::size_t(std::countr_zero(word))])];
      }
    }
    return nullptr;
  }

  /// Runs the combine() of pending collective `at` if all its lanes are here, and lets them go on.
  bool complete(Warp& warp, std::size_t at, int first, const Thread* running) {
    Pending& pending = warp.pending[at];
    const std::uint32_t arrived = pending.arrived;
    if ((pending.mask & warp.alive) & ~arrived) return false;
    pending.combine(pending.data.data(), arrived);
    warp.pending.erase(warp.pending.begin() + std::ptrdiff_t(at));
    for (std::uint32_t lanes = arrived; lanes; lanes &= lanes - 1) {
      const int thread = first + std::countr_zero(lanes);
      if (!running || thread != running->number) ready(thread);
    }
    return true;
  }
  void open_barrier() {
    result_ = votes_;
    for (const int thread : waiting_) ready(thread);
    waiting_.clear();
  }

  /// Goes on with another thread; returns when this one is chosen again.
  void leave(void*& from) {
    if (Thread* thread = next()) {
      resume(*thread, from);
    } else {
      jump(root_, from);
    }
  }
  void resume(Thread& thread, void*& from) {
    current = &thread;
    if (!thread.started) {
      thread.started = true;
      thread.stack = take_stack();
      thread.context = context::make_fcontext(static_cast<char*>(thread.stack) + kStackBytes, kStackBytes - kPage, run);
    }
    jump(thread.context, from);
  }
  void jump(void* to, void*& from) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    Thread* target = to == root_ ? nullptr : current;
    __sanitizer_start_switch_fiber(&fake, target ? static_cast<char*>(target->stack) + kPage : root_bottom_,
                                   target ? kStackBytes - kPage : root_size_);
#endif
    save(context::jump_fcontext(to, &from));
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  static void run(context::transfer_t from);
  void run_threads();
  /// Counts the running thread out, which may be what others wait for.
  void finish(Thread& me) {
    --alive_;
    const std::size_t w = std::size_t(me.number / 32);
    warps_[w].alive &= ~(1u << me.lane());
    for (std::size_t at = 0; at < warps_[w].pending.size();)
      if (!complete(warps_[w], at, int(w) * 32, nullptr)) ++at;
    if (alive_ > 0 && int(waiting_.size()) == alive_) open_barrier();
  }

  void* take_stack() {
    if (free_stacks_.empty()) {
      void* stack =
          mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (stack == MAP_FAILED) throw std::bad_alloc();
      mprotect(stack, kPage, PROT_NONE);
      stacks_.push_back(stack);
      return stack;
    }
    void* stack = free_stacks_.back();
    free_stacks_.pop_back();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack, kStackBytes);  // of frames that were never left
#endif
    return stack;
  }

  static std::string where(const Thread& thread) {
    std::ostringstream out;
    out << "thread (" << thread.index.x << ", " << thread.index.y << ", " << thread.index.z << ") of block ("
        << thread.block->index.x << ", " << thread.block->index.y << ", " << thread.block->index.z << ")";
    return out.str();
  }
  std::string deadlock() const {
    std::ostringstream out;
    out << "deadlock in block (" << block_.index.x << ", " << block_.index.y << ", " << block_.index.z
        << "): " << count_ - alive_ << " of " << count_ << " threads have left";
    if (!waiting_.empty()) out << ", " << waiting_.size() << " wait at " << barrier_;
    for (std::size_t w = 0; w < warps_.size(); ++w) {
      for (const Pending& pending : warps_[w].pending) {
        out << ", lanes " << std::hex << pending.arrived << " of warp " << std::dec << w << " wait at " << pending.what
            << " for lanes " << std::hex << (pending.mask & warps_[w].alive & ~pending.arrived) << std::dec;
      }
    }
    return out.str();
  }

  Block block_;
  Schedule schedule_;
  const std::function<void()>* kernel_ = nullptr;
  int count_ = 0, alive_ = 0;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<int> thread_of_, rank_of_;                 ///< a rank's thread, a thread's rank in the schedule
  std::array<std::uint64_t, kMaxThreads / 64> ready_{};  ///< ranks that can go on
  std::size_t lowest_ = 0;                               ///< no word of ready_ before it has a bit
  std::vector<int> waiting_;                             ///< threads at the barrier
  const char* barrier_ = "";
  Votes votes_{}, result_{};
  std::exception_ptr error_;
  void* root_ = nullptr;
  std::vector<void*> stacks_, free_stacks_;
  GuardedBytes shared_;
#if defined(__SANITIZE_ADDRESS__)
  const void* root_bottom_ = nullptr;
  std::size_t root_size_ = 0;
#endif
};

thread_local Worker* worker = nullptr;

void Worker::run(context::transfer_t from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  std::size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (from.data == &worker->root_) {
    worker->root_bottom_ = bottom;
    worker->root_size_ = size;
  }
#endif
  save(from);
  worker->run_threads();
}

/// Threads on one stack: when one leaves the kernel and the next has not begun, that one takes over the stack.
void Worker::run_threads() {
  for (;;) {
    Thread& me = *current;
    try {
      (*kernel_)();
    } catch (...) {
      if (!error_) error_ = std::current_exception();
    }
    finish(me);
    Thread* thread = error_ ? nullptr : next();
    if (thread && !thread->started) {
      thread->started = true;
      thread->stack = me.stack;
      current = thread;
      continue;
    }
    free_stacks_.push_back(me.stack);
    void* to = root_;
    if (thread) {
      current = thread;
      to = thread->context;
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, thread ? static_cast<char*>(thread->stack) + kPage : root_bottom_,
                                   thread ? kStackBytes - kPage : root_size_);
#endif
    context::jump_fcontext(to, nullptr);
  }
}

}  // namespace

Schedule& schedule() {
  static Schedule value;
  return value;
}
std::uint64_t launches() { return launch_count; }

void collective(const char* what, std::uint32_t mask, void* data, Combine combine) {
  worker->collective(what, mask, data, combine);
}
Votes barrier(const char* what, bool predicate) { return worker->barrier(what, predicate); }

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  if (worker && current) throw Fault("a kernel launches a kernel");
  ++launch_count;
  const Schedule how = schedule();
  const std::uint64_t blocks = std::uint64_t(grid.x) * grid.y * grid.z;
  std::vector<std::uint64_t> order;
  if (how.order == Order::shuffled) {
    order.resize(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(how.seed);
    std::shuffle(order.begin(), order.end(), random);
  }
  share(
      blocks,
      [&](std::uint64_t i) {
        const std::uint64_t b = how.order == Order::forward    ? i
                                : how.order == Order::backward ? blocks - 1 - i
                                                               : order[i];
        worker->run_block({unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)}, b);
      },
      [&] {
        thread_local Worker mine;
        worker = &mine;
        mine.prepare(grid, block, shared_bytes, kernel, how);
      });
}

}  // namespace emulation
