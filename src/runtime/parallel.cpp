// Starts OpenMP regions, pins their threads and lets them meet at a barrier. Compiled with -fopenmp, run by LLVM's
// libomp.
#include "runtime/parallel.hpp"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "core/check.hpp"

// An entry of libomp that no omp.h of gcc declares: how long idle workers of the calling thread's regions spin.
extern "C" void kmp_set_blocktime(int milliseconds);

namespace fastkv {
namespace {

constexpr int kSpins = 2000;
// Longer than the pause between two generated tokens, short enough that an idle engine costs no CPU time. libomp's
// own 200 ms would take CPUs from whatever the program does between runs.
constexpr int kIdleSpinMilliseconds = 5;

/// A CPU set as large as Linux can be built for; cpu_set_t ends at 1024.
struct CpuMask {
  static constexpr std::size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;
  static constexpr int kCpus = 8192;
  std::array<unsigned long, kCpus / kWordBits> words{};

  void add(int cpu) {
    if (cpu >= 0 && cpu < kCpus) words[std::size_t(cpu) / kWordBits] |= 1UL << (std::size_t(cpu) % kWordBits);
  }
  bool read() { return ::sched_getaffinity(0, sizeof words, reinterpret_cast<cpu_set_t*>(words.data())) == 0; }
  bool apply() const {
    return ::sched_setaffinity(0, sizeof words, reinterpret_cast<const cpu_set_t*>(words.data())) == 0;
  }
};

/// Keeps the mask of a thread that calls run() and puts it back at the end.
class CallerMask {
 public:
  CallerMask() : known_(mask_.read()) {}
  ~CallerMask() { restore(); }
  CallerMask(const CallerMask&) = delete;
  CallerMask& operator=(const CallerMask&) = delete;
  void restore() const {
    if (known_) mask_.apply();
  }

 private:
  CpuMask mask_;
  bool known_;
};

/// What a worker is pinned to (empty: nothing) and the mask it had before its first pin. Workers outlive regions and
/// serve several teams, so most runs find the pin in place.
struct Pin {
  std::vector<int> cpus;
  CpuMask before;
};
thread_local Pin worker_pin;

CpuMask mask_of(const std::vector<int>& cpus) {
  CpuMask mask;
  for (const int cpu : cpus) mask.add(cpu);
  return mask;
}

// Both drop a refused pin (a CPU taken away since, a sandbox): it costs speed only.
void pin_caller(const std::vector<int>& cpus, const CallerMask& own) {
  if (cpus.empty()) {
    own.restore();  // on a thread's first region libomp gives it the mask of the whole process
  } else {
    mask_of(cpus).apply();
  }
}

void pin_worker(const std::vector<int>& cpus) {
  Pin& pin = worker_pin;
  if (cpus == pin.cpus) return;
  if (pin.cpus.empty() && !pin.before.read()) return;
  if (cpus.empty() ? pin.before.apply() : mask_of(cpus).apply()) pin.cpus = cpus;
}

/// Throws unless `count` threads can exist at once: libomp ends the process when the system refuses it one.
void probe_threads(int count) {
  std::vector<std::thread> threads;
  std::atomic<bool> leave{false};
  int refused = 0;
  std::string reason;
  try {
    threads.reserve(std::size_t(count));
    while (int(threads.size()) < count) {
      threads.emplace_back([&leave] { leave.wait(false); });
    }
  } catch (const std::system_error& error) {
    refused = int(threads.size()) + 1;
    reason = error.what();
  }
  leave = true;
  leave.notify_all();
  for (std::thread& thread : threads) thread.join();
  check(refused == 0, ErrorCode::out_of_memory, "-t ", count + 1, ": the system refused thread ", refused + 1, ": ",
        reason);
}

/// CPUs that the threads of a team share: those they are pinned to, or those the process may use.
int distinct_cpus(const std::vector<std::vector<int>>& cpus) {
  std::set<int> all;
  for (const std::vector<int>& of_thread : cpus) {
    if (of_thread.empty()) return int(std::thread::hardware_concurrency());
    all.insert(of_thread.begin(), of_thread.end());
  }
  return int(all.size());
}

/// What a thread is while it runs a body: its number in the team and the memory node it computes on.
struct Seat {
  int thread = 0, node = 0;
};
thread_local Seat seat;

class SeatScope {
 public:
  explicit SeatScope(Seat taken) : before_(std::exchange(seat, taken)) {}
  ~SeatScope() { seat = before_; }
  SeatScope(const SeatScope&) = delete;
  SeatScope& operator=(const SeatScope&) = delete;

 private:
  Seat before_;
};

int entry(const std::vector<int>& values, std::size_t thread) { return thread < values.size() ? values[thread] : 0; }

ThreadPlan plan_of(std::vector<std::vector<int>> cpus) {
  ThreadPlan plan;
  plan.cpus = std::move(cpus);
  return plan;
}

/// The barrier group of each thread.
std::vector<int> groups_of(const ThreadPlan& plan) {
  check(!plan.cpus.empty(), ErrorCode::internal, "ThreadTeam: expected at least 1 thread, found 0");
  std::vector<int> groups;
  for (std::size_t i = 0; i < plan.cpus.size(); ++i) groups.push_back(entry(plan.group, i));
  return groups;
}

int spins(const ThreadPlan& plan) {
  return plan.above_quota || int(plan.cpus.size()) > distinct_cpus(plan.cpus) ? 0 : kSpins;
}

}  // namespace

int current_node() { return seat.node; }

ThreadTeam::ThreadTeam(ThreadPlan plan) : plan_(std::move(plan)), barrier_(groups_of(plan_), spins(plan_)) {
  probe_threads(size() - 1);
}
ThreadTeam::ThreadTeam(std::vector<std::vector<int>> cpus) : ThreadTeam(plan_of(std::move(cpus))) {}

ThreadTeam::~ThreadTeam() = default;

void ThreadTeam::run(const std::function<void(int thread)>& body) {
  const CallerMask caller;
  omp_set_dynamic(0);
  if (std::getenv("KMP_BLOCKTIME") == nullptr && std::getenv("OMP_WAIT_POLICY") == nullptr) {
    kmp_set_blocktime(kIdleSpinMilliseconds);
  }
  const int threads = size();
  barrier_.reset();  // a body that threw may have left it half filled
  int given = 0;
  std::exception_ptr error;
  std::atomic<bool> failed{false};
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
    if (thread == 0) given = omp_get_num_threads();
    if (omp_get_num_threads() == threads) {  // the same answer on all threads: barriers in the body need every one
      try {
        const auto index = std::size_t(thread);
        thread == 0 ? pin_caller(plan_.cpus[0], caller) : pin_worker(plan_.cpus[index]);
        const SeatScope here({thread, entry(plan_.node, index)});
        body(thread);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    }
  }
  check(given == threads, ErrorCode::out_of_memory, "-t ", threads, ": OpenMP gave ", given,
        given == 1 ? " thread" : " threads", " (OMP_THREAD_LIMIT, or a run inside another)");
  if (error) std::rethrow_exception(error);
}

void ThreadTeam::barrier() { barrier_.arrive_and_wait(seat.thread); }

}  // namespace fastkv
