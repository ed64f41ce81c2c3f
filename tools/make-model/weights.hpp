// Random weights, the same for the same seed whatever the number of threads.
#pragma once

#include <cstdint>

#include "fastkv/gguf_writer.hpp"
#include "make-model/shapes.hpp"

namespace fastkv::tools {

/// Writes the data of `plan`, declared in that order, to `writer`. Matrices are normal with standard deviation
/// 1/sqrt(inputs), so that activations keep their size through the layers; norms lie near 1.
/// Throws Error cancelled when the program's stop flag is raised.
void write_weights(GgufWriter& writer, const Shape& shape, const std::vector<TensorPlan>& plan, std::uint64_t seed,
                   int threads);

}  // namespace fastkv::tools
