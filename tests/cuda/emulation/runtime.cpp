// The emulated runtime: device memory with guard pages, streams that run at once, events, graphs of closures.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "control.hpp"
#include "cuda_runtime_api.h"

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct CUstream_st {
  CUgraph_st* capture = nullptr;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
  bool recorded = false;
};

namespace emulation {
namespace {

constexpr std::size_t kPage = 4096, kAlignment = 16;
constexpr std::uint32_t kSmallNumber = 1 << 20;
constexpr std::uint64_t kLowestAddress = 1ull << 46, kHighestAddress = 1ull << 47;  ///< of the host's data

struct Allocation {
  std::size_t bytes;
  void* mapping;
  std::size_t mapped;
};

std::mutex mutex;
std::map<std::uintptr_t, Allocation> allocations;  ///< by first byte
std::size_t used = 0, peak = 0;
int capturing = 0;
int accesses = 0;
bool closed = false;  ///< device memory is guarded, and open only while there are accesses
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t result(cudaError_t status) {
  if (device().failed) status = cudaErrorLaunchFailure;
  if (status != cudaSuccess) last_error = status;
  return status;
}

/// Whether [memory, memory + bytes) lies in one allocation of the device.
bool on_device(const void* memory, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  const auto at = reinterpret_cast<std::uintptr_t>(memory);
  auto next = allocations.upper_bound(at);
  if (next == allocations.begin()) return false;
  const auto& [first, allocation] = *--next;
  return at >= first && at + bytes <= first + allocation.bytes;
}
bool on_host(const void* memory) { return memory && !on_device(memory, 1); }

void protect_all(int protection) {
  for (const auto& [first, allocation] : allocations)
    mprotect(allocation.mapping, allocation.mapped - kPage, protection);
}

/// The memory ends at a page nobody may read, and is full of NaN.
cudaError_t allocate(void** memory, std::size_t bytes) {
  if (!device().present) return cudaErrorNoDevice;
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  const std::lock_guard lock(mutex);
  if (used > device().memory || bytes > device().memory - used) return cudaErrorMemoryAllocation;
  const std::size_t size = (bytes + kPage - 1) / kPage * kPage;
  void* mapping =
      mmap(nullptr, size + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return cudaErrorMemoryAllocation;
  mprotect(static_cast<char*>(mapping) + size, kPage, PROT_NONE);
  std::memset(mapping, 0xff, size);
  if (closed) mprotect(mapping, size, PROT_NONE);
  *memory = static_cast<char*>(mapping) + size - (bytes + kAlignment - 1) / kAlignment * kAlignment;
  allocations[reinterpret_cast<std::uintptr_t>(*memory)] = {bytes, mapping, size + kPage};
  used += bytes;
  peak = std::max(peak, used);
  return cudaSuccess;
}

cudaError_t release(void* memory) {
  if (!memory) return cudaSuccess;
  const std::lock_guard lock(mutex);
  const auto at = allocations.find(reinterpret_cast<std::uintptr_t>(memory));
  if (at == allocations.end()) return cudaErrorInvalidValue;
  munmap(at->second.mapping, at->second.mapped);
  used -= at->second.bytes;
  allocations.erase(at);
  return cudaSuccess;
}

bool right_sides(const void* to, std::size_t to_bytes, const void* from, std::size_t from_bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault) return true;
  return (to_device ? on_device(to, to_bytes) : on_host(to)) &&
         (from_device ? on_device(from, from_bytes) : on_host(from));
}

}  // namespace

DeviceAccess::DeviceAccess() {
  const std::lock_guard lock(mutex);
  if (accesses++ == 0 && closed) protect_all(PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
  const std::lock_guard lock(mutex);
  closed = device().guarded;
  if (--accesses == 0 && closed) protect_all(PROT_NONE);
}

Device& device() {
  static Device value;
  return value;
}
std::size_t used_memory() { return used; }
std::size_t peak_memory() { return peak; }
void reset_peak() { peak = used; }

void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream && stream->capture) {
    stream->capture->work.push_back(std::move(work));
  } else {
    const DeviceAccess access;
    work();
  }
}

void check_argument(const std::uint64_t* words, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (words[i] < kLowestAddress || words[i] > kHighestAddress) continue;
    if (std::uint32_t(words[i]) < kSmallNumber) continue;  // an int, beside half a pointer that padding holds
    const auto* address = reinterpret_cast<const unsigned char*>(words[i]);
    unsigned char resident;
    void* page = reinterpret_cast<void*>(words[i] / kPage * kPage);
    if (mincore(page, kPage, &resident) != 0) continue;  // not an address, but two numbers side by side
    if (on_device(address, 0) || on_device(address - 1, 0)) continue;
    throw Fault("a kernel is launched with a pointer to the host's memory");
  }
}

}  // namespace emulation

using namespace emulation;

cudaError_t cudaGetLastError() {
  result(cudaSuccess);
  return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() { return last_error; }

#define FASTKV_EMULATED_ERRORS(X)                                                                   \
  X(cudaSuccess, "no error")                                                                        \
  X(cudaErrorInvalidValue, "invalid argument")                                                      \
  X(cudaErrorMemoryAllocation, "out of memory")                                                     \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                \
  X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")    \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                        \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                               \
  X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device")    \
  X(cudaErrorUnsupportedPtxVersion, "the provided PTX was compiled with an unsupported toolchain.") \
  X(cudaErrorNotReady, "device not ready")                                                          \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                                           \
  X(cudaErrorNotSupported, "operation not supported")                                               \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")          \
  X(cudaErrorGraphExecUpdateFailure, "the graph update was not performed")                          \
  X(cudaErrorUnknown, "unknown error")

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
#define FASTKV_EMULATED_CASE(name, text) \
  case name:                             \
    return text;
    FASTKV_EMULATED_ERRORS(FASTKV_EMULATED_CASE)
#undef FASTKV_EMULATED_CASE
  }
  return "unrecognized error code";
}
const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
#define FASTKV_EMULATED_CASE(name, text) \
  case name:                             \
    return #name;
    FASTKV_EMULATED_ERRORS(FASTKV_EMULATED_CASE)
#undef FASTKV_EMULATED_CASE
  }
  return "unrecognized error code";
}

// ---- devices -------------------------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device().present ? 1 : 0;
  return result(device().present ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* ordinal) {
  *ordinal = 0;
  return result(device().present ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int ordinal) {
  if (!device().present) return result(cudaErrorNoDevice);
  return result(ordinal == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal) {
  if (!device().present) return result(cudaErrorNoDevice);
  if (ordinal != 0) return result(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated H100");
  properties->totalGlobalMem = device().memory;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = 227 << 10;
  properties->sharedMemPerMultiprocessor = 228 << 10;
  properties->major = 9;
  properties->multiProcessorCount = 132;
  properties->maxThreadsPerBlock = 1024;
  properties->warpSize = 32;
  properties->l2CacheSize = 50 << 20;
  properties->memoryBusWidth = 5120;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal) {
  cudaDeviceProp properties;
  if (const cudaError_t status = cudaGetDeviceProperties(&properties, ordinal); status != cudaSuccess) return status;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      break;
    case cudaDevAttrClockRate:
      *value = 1980000;
      break;
    case cudaDevAttrMemoryClockRate:
      *value = 2619000;
      break;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = properties.memoryBusWidth;
      break;
    case cudaDevAttrL2CacheSize:
      *value = properties.l2CacheSize;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(properties.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
    default:
      return result(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = device().present ? CUDART_VERSION : 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return result(capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess); }

// ---- memory --------------------------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** memory, std::size_t bytes) { return result(allocate(memory, bytes)); }
cudaError_t cudaFree(void* memory) { return result(release(memory)); }
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream) {
  if (stream && stream->capture) return result(cudaErrorStreamCaptureUnsupported);
  return result(allocate(memory, bytes));
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  if (stream && stream->capture) return result(cudaErrorStreamCaptureUnsupported);
  return result(release(memory));
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  *memory = ::operator new(bytes, std::nothrow);
  return result(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* memory) {
  ::operator delete(memory);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  if (!device().present) return result(cudaErrorNoDevice);
  const std::lock_guard lock(mutex);
  *total = device().memory;
  *free = device().memory - std::min(used, device().memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!right_sides(to, bytes, from, bytes, kind)) return result(cudaErrorInvalidValue);
  enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  return result(cudaSuccess);
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (capturing) return result(cudaErrorStreamCaptureUnsupported);
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (width > to_pitch || width > from_pitch ||
      !right_sides(to, (height - 1) * to_pitch + width, from, (height - 1) * from_pitch + width, kind)) {
    return result(cudaErrorInvalidValue);
  }
  enqueue(stream, [=] {
    for (std::size_t row = 0; row < height; ++row)
      std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!on_device(to, bytes)) return result(cudaErrorInvalidValue);
  enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int ordinal) {
  *pool = nullptr;
  return cudaSetDevice(ordinal);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<std::uint64_t*>(value) = used;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }

// ---- streams, events, graphs ---------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (!device().present) return result(cudaErrorNoDevice);
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return result(stream && stream->capture ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  enqueue(stream, [event] {
    event->time = std::chrono::steady_clock::now();
    event->recorded = true;
  });
  return result(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return result(capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  if (!begin->recorded || !end->recorded) return result(cudaErrorInvalidValue);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->capture) return result(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st;
  ++capturing;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream && stream->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream || !stream->capture) return result(cudaErrorInvalidValue);
  *graph = std::exchange(stream->capture, nullptr);
  --capturing;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* info) {
  const bool same = exec->work.size() == graph->work.size();
  if (same) exec->work = graph->work;
  if (info) info->result = same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateError;
  return result(same ? cudaSuccess : cudaErrorGraphExecUpdateFailure);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (stream && stream->capture) return result(cudaErrorStreamCaptureUnsupported);
  for (const auto& work : exec->work) enqueue(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
