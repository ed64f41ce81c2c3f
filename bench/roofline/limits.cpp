// Measuring the limits.
#include "bench/roofline/limits.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>

#include "fastkv/error.hpp"
#include "runtime/parallel.hpp"
#include "runtime/topology.hpp"
#include "simd/kernels.hpp"

namespace fastkv::bench {

namespace {

constexpr int kBursts = 6;
constexpr double kBurstSeconds = 0.004;  // long enough to reach the clock of wide instructions, short enough to fit
                                         // between interruptions
constexpr std::size_t kTeamBytes = std::size_t{1} << 30;  // that a team's threads are placed for

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Limits::Limits(const EngineOptions& options, const RooflineSizes& sizes)
    : options_(options), device_(make_device_roofline(options.device, sizes)) {
  char message[256];
  if (!simd::choose_isa(options.isa.empty() ? nullptr : options.isa.c_str(), isa_, message)) {
    throw Error(ErrorCode::invalid_option, message);
  }
}

Limits::~Limits() = default;

ThreadTeam& Limits::team(int threads) {
  std::unique_ptr<ThreadTeam>& team = teams_[threads];
  if (!team) {
    team = std::make_unique<ThreadTeam>(
        plan_threads(Topology::detect(), threads, options_.numa, options_.cpus, kTeamBytes));
  }
  return *team;
}

double seconds_on(ThreadTeam& team, const std::function<void(int thread)>& body) {
  double start = 0, end = 0;
  team.run([&](int thread) {
    team.barrier();
    if (thread == 0) start = now();
    body(thread);
    team.barrier();
    if (thread == 0) end = now();
  });
  return end - start;
}

double Limits::operations(const simd::PeakLoop& loop, int threads) {
  ThreadTeam& workers = team(threads);
  std::int64_t rounds = 1000;
  double best = 0;
  for (int burst = 0; burst < kBursts;) {
    const double seconds = seconds_on(workers, [&](int) { loop.run(rounds); });
    if (seconds < kBurstSeconds / 2) {  // the clock is still rising, or the first guess was short
      rounds *= 2;
      continue;
    }
    best = std::max(best, loop.operations * static_cast<double>(rounds) * workers.size() / seconds);
    ++burst;
  }
  return best;
}

double Limits::operations(const std::string& compute, int threads) {
  if (device_) return device_->operations();
  const simd::Peaks& peaks = simd::peaks(isa_);
  return operations(compute == "int8" ? peaks.i8 : compute == "bf16" ? peaks.bf16 : peaks.f32, threads);
}

MemoryReader Limits::reader(std::size_t bytes, int threads) {
  return MemoryReader(team(threads), isa_, bytes, options_.huge_pages);
}

double Limits::read_bandwidth(std::size_t bytes, int threads) {
  return device_ ? device_->read_bandwidth(bytes) : reader(bytes, threads).best();
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace fastkv::bench
