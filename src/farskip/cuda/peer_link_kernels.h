#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "farskip/cuda/copy_kernels.h"

namespace farskip::cuda {

// Copies that begin one after the other, at an even pace between two times, and a time to end.
struct PacedCopies {
  CopyBatch batch;
  // Nanoseconds after the kernel has started.
  uint64_t first_ns, last_ns, end_ns;
  const volatile uint32_t* released;  // once not 0, nothing waits for its time
};

// Throws Error if the launch fails. The current device carries it out, with what it has.
void launch_paced_copies(const PacedCopies& copies, cudaStream_t stream);

}  // namespace farskip::cuda
