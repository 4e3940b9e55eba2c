#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace farskip::cuda {

inline constexpr int max_copies = 64;  // of one launch

struct CopyBatch {
  struct Copy {
    char* to;
    const char* from;
    int64_t bytes;
  };
  Copy copies[max_copies];
  int count = 0;

  int64_t bytes() const {
    int64_t sum = 0;
    for (int c = 0; c < count; ++c) sum += copies[c].bytes;
    return sum;
  }
};

// Throws Error if the launch fails.
void launch_copies(const CopyBatch& batch, cudaStream_t stream);

}  // namespace farskip::cuda
