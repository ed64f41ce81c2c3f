// Helper threads that live as long as the process and wait for work.
#include "workers.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "control.hpp"

namespace emulation {
namespace {

class Helpers {
 public:
  ~Helpers() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    begin_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  /// body() on this thread and on `others` helpers; returns when all are done.
  void run(int others, const std::function<void()>& body) {
    const std::lock_guard one_at_a_time(callers_);
    {
      const std::lock_guard lock(mutex_);
      while (int(threads_.size()) < others) threads_.emplace_back([this] { help(); });
      body_ = &body;
      wanted_ = running_ = others;
    }
    begin_.notify_all();
    body();
    std::unique_lock lock(mutex_);
    end_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  void help() {
    std::unique_lock lock(mutex_);
    for (;;) {
      begin_.wait(lock, [this] { return closing_ || wanted_ > 0; });
      if (closing_) return;
      --wanted_;
      const std::function<void()>& body = *body_;
      lock.unlock();
      body();
      lock.lock();
      if (--running_ == 0) end_.notify_all();
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable begin_, end_;
  std::vector<std::thread> threads_;
  const std::function<void()>* body_ = nullptr;
  int wanted_ = 0, running_ = 0;
  bool closing_ = false;
};

}  // namespace

void share(std::uint64_t count, const std::function<void(std::uint64_t)>& task, const std::function<void()>& enter) {
  static Helpers helpers;
  std::atomic<std::uint64_t> taken{0};
  std::mutex mutex;
  std::exception_ptr error;
  const std::function<void()> body = [&] {
    try {
      bool entered = false;
      for (std::uint64_t i; (i = taken++) < count;) {
        if (!std::exchange(entered, true)) enter();
        task(i);
      }
    } catch (...) {
      taken = count;
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  const int others = int(std::min<std::uint64_t>(std::uint64_t(std::max(schedule().workers, 1)), count)) - 1;
  if (others > 0) {
    helpers.run(others, body);
  } else {
    body();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace emulation
