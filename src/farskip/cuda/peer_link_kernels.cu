#include <algorithm>

#include "farskip/cuda/copy.cuh"
#include "farskip/cuda/launch.h"
#include "farskip/cuda/peer_link_kernels.h"

namespace farskip::cuda {
namespace {

constexpr int threads = 512, blocks_a_processor = 2;
constexpr int64_t piece_bytes = 32 << 10;  // four accesses of every thread

__host__ __device__ __forceinline__ int64_t pieces_of(const CopyBatch::Copy& copy) {
  return (copy.bytes + piece_bytes - 1) / piece_bytes;
}

__device__ __forceinline__ uint64_t now_ns() {
  uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

// The block waits until then. To look at `released` takes a way to the host and back, for which
// only waits that are much longer have the time.
__device__ __forceinline__ void await(uint64_t due, const volatile uint32_t* released) {
  constexpr uint64_t long_wait_ns = 1000000;
  if (threadIdx.x == 0) {
    for (uint64_t now = now_ns(); now < due; now = now_ns()) {
      if (due - now < long_wait_ns) continue;
      if (*released != 0) break;
      __nanosleep(long_wait_ns / 4);  // sleeps up to twice that
    }
  }
  __syncthreads();
}

// Pieces go round the blocks, so that each begins when its turn comes whatever became of others.
__global__ void __launch_bounds__(threads, blocks_a_processor)
    paced_copies(const __grid_constant__ PacedCopies a, int64_t pieces) {
  const uint64_t start = now_ns();
  int c = 0;
  int64_t before = 0;  // pieces of earlier copies
  for (int64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    while (piece - before >= pieces_of(a.batch.copies[c])) before += pieces_of(a.batch.copies[c++]);
    await(start + a.first_ns + (a.last_ns - a.first_ns) * piece / pieces, a.released);
    const CopyBatch::Copy& copy = a.batch.copies[c];
    const int64_t offset = (piece - before) * piece_bytes;
    copy_bytes(copy.to + offset, copy.from + offset, min(piece_bytes, copy.bytes - offset),
               threadIdx.x, threads);
  }
  if (blockIdx.x == 0) await(start + a.end_ns, a.released);
}

}  // namespace

void launch_paced_copies(const PacedCopies& copies, cudaStream_t stream) {
  int64_t pieces = 0;
  for (int c = 0; c < copies.batch.count; ++c) pieces += pieces_of(copies.batch.copies[c]);
  const int64_t most = static_cast<int64_t>(multiprocessors()) * blocks_a_processor;
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>(pieces, 1, most));
  paced_copies<<<blocks, threads, 0, stream>>>(copies, pieces);
  check_launch("paced_copies");
}

}  // namespace farskip::cuda
