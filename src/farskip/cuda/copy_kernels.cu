#include <algorithm>

#include "farskip/cuda/copy_kernels.h"
#include "farskip/cuda/launch.h"

namespace farskip::cuda {
namespace {

constexpr int threads = 32;   // a block is one warp
constexpr int in_flight = 4;  // accesses of a thread, all loaded before the first is stored
constexpr int blocks_a_processor = 2;

// Data that passes through is kept out of the caches where that is possible.
template <typename T>
__device__ __forceinline__ void copy_elements(T* __restrict__ to, const T* __restrict__ from,
                                              int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * threads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  for (; i + (in_flight - 1) * step < count; i += in_flight * step) {
    T values[in_flight];
#pragma unroll
    for (int j = 0; j < in_flight; ++j) values[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < in_flight; ++j) __stcs(to + i + j * step, values[j]);
  }
  for (; i < count; i += step) __stcs(to + i, __ldcs(from + i));
}

__global__ void __maxnreg__(32) copy_batch(const __grid_constant__ CopyBatch batch) {
  for (int c = 0; c < batch.count; ++c) {
    const CopyBatch::Copy& copy = batch.copies[c];
    const auto alignment = reinterpret_cast<uintptr_t>(copy.to) |
                           reinterpret_cast<uintptr_t>(copy.from) |
                           static_cast<uintptr_t>(copy.bytes);
    if (alignment % sizeof(uint4) == 0) {
      copy_elements(reinterpret_cast<uint4*>(copy.to), reinterpret_cast<const uint4*>(copy.from),
                    copy.bytes / static_cast<int64_t>(sizeof(uint4)));
    } else {
      copy_elements(copy.to, copy.from, copy.bytes);
    }
  }
}

}  // namespace

void launch_copies(const CopyBatch& batch, cudaStream_t stream) {
  int64_t bytes = 0;
  for (int c = 0; c < batch.count; ++c) bytes += batch.copies[c].bytes;
  const int64_t most = static_cast<int64_t>(multiprocessors()) * blocks_a_processor;
  const int64_t enough = divide_up(bytes, threads * in_flight * access_bytes);
  copy_batch<<<static_cast<unsigned>(std::clamp<int64_t>(enough, 1, most)), threads, 0, stream>>>(
      batch);
  check_launch("copy_batch");
}

}  // namespace farskip::cuda
