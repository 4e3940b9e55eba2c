#include "farskip/cuda/launch.h"
#include "fill_gpu.h"

namespace farskip::cuda {
namespace {

constexpr int threads = 1024, blocks_per_multiprocessor = 2;

__device__ uint64_t now_ns() {
  uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

__global__ void __launch_bounds__(threads, blocks_per_multiprocessor)
    fill(const volatile uint32_t* release, uint32_t* running) {
  const uint64_t start = now_ns();
  if (threadIdx.x == 0) atomicAdd_system(running, 1);
  while (*release == 0 && now_ns() - start < 2000000000ull) __nanosleep(1000);
}

}  // namespace

uint32_t blocks_that_fill_gpu() {
  return static_cast<uint32_t>(multiprocessors() * blocks_per_multiprocessor);
}

void fill_gpu(const volatile uint32_t* release, uint32_t* running, cudaStream_t stream,
              uint32_t blocks) {
  fill<<<blocks, threads, 0, stream>>>(release, running);
  check_launch("fill");
}

}  // namespace farskip::cuda
