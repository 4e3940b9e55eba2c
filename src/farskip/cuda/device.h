#pragma once

#include <string>

namespace farskip {

// Whether this build has CUDA kernels.
bool cuda_is_built();

// Whether this build has CUDA kernels and there is a GPU that they run on (compute capability 9.0,
// Hopper, or later). Never throws: a missing driver means false.
bool cuda_is_available();

// For people: "CUDA 13.0, driver 13.0, NVIDIA H200 (sm_90)", or why there is no CUDA.
std::string cuda_version();

}  // namespace farskip
