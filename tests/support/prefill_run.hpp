// A run of the engine's own prefill loop on a Backend, with what it decided and stored written down.
#pragma once

#include "support/backend_run.hpp"

namespace fastkv::test {

/// Under any method; scores stay inside. `feed`: tokens fed one by one after the prompt. The backend is loaded.
BackendRun prefill_on(Backend& backend, const ModelConfig& config, std::span<const std::int32_t> prompt,
                      const MethodParams& method, std::span<const std::int32_t> feed);

}  // namespace fastkv::test
