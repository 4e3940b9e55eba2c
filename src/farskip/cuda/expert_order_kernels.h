#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace farskip::cuda {

inline constexpr int max_expert_blocks = 4096;  // (rank, expert) pairs: what shared memory holds

struct ExpertOrderArguments {
  const int64_t* counts;  // [ranks, experts], rows `stride` apart
  int64_t stride;
  int ranks, experts, rows;
  int64_t *order, *inverse;  // [rows]
  int32_t* ends;             // [experts]
};

// Throws Error if the launch fails.
void launch_expert_order(const ExpertOrderArguments& arguments, cudaStream_t stream);

}  // namespace farskip::cuda
