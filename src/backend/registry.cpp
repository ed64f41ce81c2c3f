// Devices by name: the only place that knows which backends this build has.
#include "backend/backend.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/device_roofline.hpp"
#include "core/check.hpp"
#include "fastkv/engine.hpp"
#if FASTKV_WITH_CUDA
#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/roofline.hpp"
#endif

namespace fastkv {
namespace {

[[noreturn]] void fail_unknown(const std::string& device) {
  std::string known;
  for (const std::string& name : device_names()) known += concat(known.empty() ? "" : ", ", name);
  fail(ErrorCode::invalid_option, "--device ", device, ": this build has ", known);
}

}  // namespace

void RunControl::throw_if_stopped() const {
  if (stopping()) fail(ErrorCode::cancelled, "stopped");
}

std::vector<std::string> device_names() {
  return {
    "cpu",
#if FASTKV_WITH_CUDA
        "cuda",
#endif
  };
}

std::unique_ptr<Backend> make_backend(const EngineOptions& options, const ModelConfig& config,
                                      const ModelTensors& tensors) {
  if (options.device == "cpu") return std::make_unique<cpu::CpuBackend>(options, config, tensors);
#if FASTKV_WITH_CUDA
  if (options.device == "cuda") return std::make_unique<cuda::CudaBackend>(options, config, tensors);
#endif
  fail_unknown(options.device);
}

std::unique_ptr<DeviceRoofline> make_device_roofline(const std::string& device,
                                                     [[maybe_unused]] const RooflineSizes& sizes) {
  if (device == "cpu") return nullptr;
#if FASTKV_WITH_CUDA
  if (device == "cuda") return std::make_unique<cuda::Roofline>(sizes);
#endif
  fail_unknown(device);
}

std::string devices_text() {
  std::string text = concat("cpu: ISA levels ", cpu::CpuBackend::isa_levels(), "\n");
#if FASTKV_WITH_CUDA
  text += cuda::devices();
#endif
  return text;
}

}  // namespace fastkv
