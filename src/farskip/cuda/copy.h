#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace farskip::cuda {

struct TensorCopy {
  at::Tensor to, from;  // contiguous, of as many bytes, on one GPU; copies must not depend on others
};

// Queues the copies on the current stream in one call, with the wish that copy engines carry them
// out and not multiprocessors (CUDA 13; an older one copies as it likes). The host does not wait.
// Throws Error if the runtime refuses, UnsupportedError in a build without CUDA.
void copy_beside_compute(std::span<const TensorCopy> copies);

}  // namespace farskip::cuda
