// Events of the CUDA runtime as watches.
#include "backend/cuda/stage_timer.hpp"

#include <algorithm>

#include "backend/cuda/device.hpp"

namespace fastkv::cuda {

EventPool::~EventPool() {
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
}

std::size_t EventPool::record(cudaStream_t stream) {
  if (used_ == events_.size()) {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreate(&event), "creating an event");
    events_.push_back(event);
  }
  check_cuda(cudaEventRecord(events_[used_], stream), "recording an event");
  return used_++;
}

void StageTimer::start() {
  events_.record(stream_);
  stages_.push_back(kNobody);
}

void StageTimer::lap(Stage stage) {
  events_.record(stream_);
  stages_.push_back(int(stage));
}

StageTimes StageTimer::take() {
  StageTimes times;
  if (events_.used() > 0) check_cuda(cudaEventSynchronize(events_[events_.used() - 1]), "waiting for the device");
  for (std::size_t i = 1; i < events_.used(); ++i) {
    if (stages_[i] == kNobody) continue;
    float ms = 0;
    check_cuda(cudaEventElapsedTime(&ms, events_[i - 1], events_[i]), "time of a stage");
    times.ms[stages_[i]] += double(ms);
  }
  events_.reset();
  stages_.clear();
  const auto now = std::chrono::steady_clock::now();
  const double passed = std::chrono::duration<double, std::milli>(now - taken_).count();
  times[Stage::wait] = std::max(0.0, passed - times.total());
  taken_ = now;
  return times;
}

Pace::~Pace() {
  for (cudaEvent_t event : done_)
    if (event) cudaEventDestroy(event);
}

void Pace::step(RunControl& control) {
  cudaEvent_t& event = done_[next_];
  next_ = (next_ + 1) % kAhead;
  if (!event) check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  check_cuda(cudaEventRecord(event, stream_), "recording an event");
  const cudaEvent_t before_last = done_[next_];
  if (before_last) check_cuda(cudaEventSynchronize(before_last), "waiting for the device");
  control.poll();
  control.throw_if_stopped();
}

}  // namespace fastkv::cuda
