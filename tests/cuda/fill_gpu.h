#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace farskip::cuda {

// Queues a kernel that takes every thread slot of every multiprocessor of the current device, until
// `*release` (pinned host memory) is not 0 or two seconds have passed. Adds to `*running`
// (likewise) once it has started everywhere.
void fill_gpu(const volatile uint32_t* release, uint32_t* running, cudaStream_t stream);
// Blocks of it.
uint32_t blocks_that_fill_gpu();

}  // namespace farskip::cuda
