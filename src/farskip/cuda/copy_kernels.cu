#include <algorithm>

#include "farskip/cuda/copy.cuh"
#include "farskip/cuda/copy_kernels.h"
#include "farskip/cuda/launch.h"

namespace farskip::cuda {
namespace {

constexpr int threads = 32;  // a block is one warp
constexpr int blocks_a_processor = 2;
constexpr int64_t least_bytes = 2048;  // of a block

__global__ void __maxnreg__(32) copy_batch(const __grid_constant__ CopyBatch batch) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  for (int c = 0; c < batch.count; ++c) {
    const CopyBatch::Copy& copy = batch.copies[c];
    copy_bytes(copy.to, copy.from, copy.bytes, first, static_cast<int64_t>(gridDim.x) * threads);
  }
}

}  // namespace

void launch_copies(const CopyBatch& batch, cudaStream_t stream) {
  const int64_t most = static_cast<int64_t>(multiprocessors()) * blocks_a_processor;
  const int64_t enough = divide_up(batch.bytes(), least_bytes);
  copy_batch<<<static_cast<unsigned>(std::clamp<int64_t>(enough, 1, most)), threads, 0, stream>>>(
      batch);
  check_launch("copy_batch");
}

}  // namespace farskip::cuda
