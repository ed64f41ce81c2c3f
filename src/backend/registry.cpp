// Devices by name: the only place that knows which backends this build has.
#include "backend/backend.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "core/check.hpp"

namespace fastkv {

void RunControl::throw_if_stopped() const {
  if (stopping()) fail(ErrorCode::cancelled, "stopped");
}

std::unique_ptr<Backend> make_backend(const EngineOptions& options, const ModelConfig& config,
                                      const ModelTensors& tensors) {
  if (options.device == "cpu") return std::make_unique<cpu::CpuBackend>(options, config, tensors);
  fail(ErrorCode::invalid_option, "--device ", options.device, ": this build has cpu");
}

std::string devices_text() { return concat("cpu: ISA levels ", cpu::CpuBackend::isa_levels(), "\n"); }

}  // namespace fastkv
