// Emulation: everything of CUB that the kernels use is in one header.
#pragma once
#include "cub/cub.cuh"
