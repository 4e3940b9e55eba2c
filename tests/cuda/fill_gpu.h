#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace farskip::cuda {

// Queues a kernel of `blocks` blocks, two of which take every thread slot of a multiprocessor,
// until
// `*release` (pinned host memory) is not 0 or two seconds have passed. `*running` (likewise) counts
// those that have started.
void fill_gpu(const volatile uint32_t* release, uint32_t* running, cudaStream_t stream,
              uint32_t blocks);
// How many take every multiprocessor of the current device.
uint32_t blocks_that_fill_gpu();

}  // namespace farskip::cuda
